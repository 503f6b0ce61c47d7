//! A role with a schema of its own, in which each name of PostgreSQL is there a second time, and says
//! so when it is used.

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use lock_tests::servers::{PostgresServer, Server};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// What the server logs when something of the neighbour's runs.
const RAN: &str = "the neighbour ran";

/// Types that arguments are changed to.
const TYPES: &str = "int2 int4 int8 numeric float8 text varchar bpchar name oid bool bit timestamptz interval \
     _int2 _int8 _text";

/// The schema `neighbour`, of the role `neighbour`; all may use it.
///
/// It has every function, operator, type and relation of PostgreSQL as it is there; and, of those
/// whose names occur in the sources of the library, also every one that differs in one argument: these
/// win over PostgreSQL's where they fit better, wherever the schema is in the path.
pub(crate) struct Neighbour<'a>(&'a PostgresServer);

impl<'a> Neighbour<'a> {
    pub(crate) async fn of(server: &'a PostgresServer) -> Self {
        let pool = server.pool().await;
        let role = "CREATE ROLE neighbour LOGIN; \
             CREATE SCHEMA neighbour AUTHORIZATION neighbour; \
             GRANT USAGE ON SCHEMA neighbour TO PUBLIC";
        pool.execute(role).await.unwrap();
        let url = server.url_for("neighbour", "postgres");
        let mut neighbour = PgConnection::connect(&url).await.unwrap();
        let (words, symbols) = sources();
        for step in [SAME, OTHERS] {
            let step = step
                .replace("{types}", TYPES)
                .replace("{words}", &words)
                .replace("{symbols}", &symbols)
                .replace("{ran}", RAN);
            neighbour.execute(AssertSqlSafe(step)).await.unwrap();
        }
        Self(server)
    }

    /// What of it ran until now.
    pub(crate) fn ran(&self) -> BTreeSet<String> {
        let log = self.0.log();
        let lines = log.lines().filter_map(|line| line.split_once(RAN));
        lines.map(|(_, what)| what.trim().to_owned()).collect()
    }
}

/// All words and all rows of operator characters in the sources, as lists of SQL.
fn sources() -> (String, String) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lock-core/src/postgres");
    let mut text = String::new();
    read_all(&sources, &mut text);
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let symbols = text.split(|c: char| !"+-*/<>=~!@#%^&|`?".contains(c));
    (list(words), list(symbols))
}

fn list<'t>(all: impl Iterator<Item = &'t str>) -> String {
    let quoted: BTreeSet<_> = all.map(|one| format!("'{one}'")).collect();
    quoted.into_iter().collect::<Vec<_>>().join(",")
}

fn read_all(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, text);
        } else {
            *text += &fs::read_to_string(path).unwrap();
        }
    }
}

/// The same names with the same arguments. What cannot be made, with pseudo-types and such, is left
/// out.
const SAME: &str = r#"
SET search_path = pg_catalog;
CREATE FUNCTION neighbour.touched(what text) RETURNS bool LANGUAGE plpgsql AS
  $$ BEGIN RAISE LOG '{ran} %', what; RETURN true; END $$;
CREATE FUNCTION neighbour.make(name text, arguments text, result text, is_plain bool) RETURNS void
LANGUAGE plpgsql AS $make$
BEGIN
  EXECUTE format(
    'CREATE FUNCTION neighbour.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', name, arguments, result,
    format('BEGIN RAISE LOG %L; RETURN %s; END', '{ran} ' || name || '(' || replace(arguments, '%', '') || ')',
      CASE WHEN is_plain THEN 'NULL' END));
EXCEPTION WHEN OTHERS THEN NULL;
END $make$;
CREATE FUNCTION neighbour.attempt(statement text) RETURNS void LANGUAGE plpgsql AS $attempt$
BEGIN EXECUTE statement; EXCEPTION WHEN OTHERS THEN NULL; END $attempt$;

SELECT neighbour.make(proname, replace(pg_get_function_arguments(oid), '"any"', 'anyelement'),
    pg_get_function_result(oid), NOT proretset AND prorettype <> 'void'::regtype AND proargmodes IS NULL)
  FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace;
SELECT neighbour.make('operator_' || oid, concat_ws(', ', nullif(oprleft, 0)::regtype, oprright::regtype),
    oprresult::regtype::text, true),
  neighbour.attempt(format('CREATE OPERATOR neighbour.%s (FUNCTION = neighbour.operator_%s%s, RIGHTARG = %s)',
    oprname, oid, ', LEFTARG = ' || nullif(oprleft, 0)::regtype, oprright::regtype))
  FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace;
SELECT neighbour.attempt(format('CREATE VIEW neighbour.%I AS SELECT * FROM pg_catalog.%I WHERE neighbour.touched(%L)',
    relname, relname, relname))
  FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v');
GRANT SELECT ON ALL TABLES IN SCHEMA neighbour TO PUBLIC;
"#;

/// Those with one other argument; types last, which would be taken for PostgreSQL's from there on.
const OTHERS: &str = r#"
SET search_path = pg_catalog;
SELECT neighbour.make(p.proname, a.arguments,
    CASE WHEN t.typname LIKE 'any%' THEN CASE WHEN p.proretset THEN 'SETOF int8' ELSE 'int8' END
      ELSE pg_get_function_result(p.oid) END, NOT p.proretset AND p.prorettype <> 'void'::regtype)
  FROM pg_proc AS p JOIN pg_type AS t ON t.oid = p.prorettype,
    generate_series(0, p.pronargs - 1) AS position,
    unnest(string_to_array('{types}', ' ')) AS other,
    LATERAL (SELECT string_agg(CASE WHEN i = position THEN other ELSE p.proargtypes[i]::regtype::text END, ', '
      ORDER BY i) AS arguments FROM generate_series(0, p.pronargs - 1) AS i) AS a
  WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.pronargs <= 4 AND p.proname IN ({words});
SELECT neighbour.make('pair', l || ', ' || r, 'bool', true), neighbour.make('pair_of', l || ', ' || r, l, true)
  FROM unnest(string_to_array('{types}', ' ')) AS l, unnest(string_to_array('{types}', ' ')) AS r;
SELECT neighbour.attempt(format('CREATE OPERATOR neighbour.%s (FUNCTION = neighbour.%s, LEFTARG = %s, RIGHTARG = %s)',
    o.oprname, CASE WHEN o.oprname ~ '[<>=]' AND o.oprname NOT IN ('<<', '>>') THEN 'pair' ELSE 'pair_of' END, l, r))
  FROM (SELECT DISTINCT oprname FROM pg_operator WHERE oprname IN ({symbols})) AS o,
    unnest(string_to_array('{types}', ' ')) AS l, unnest(string_to_array('{types}', ' ')) AS r
  WHERE NOT EXISTS (SELECT FROM pg_operator AS of WHERE of.oprname = o.oprname
    AND of.oprleft = l::regtype AND of.oprright = r::regtype);
SELECT neighbour.attempt(format(
    'CREATE DOMAIN neighbour.%I AS pg_catalog.%I CHECK (neighbour.touched(%L) OR VALUE IS NULL)', typname, typname, typname))
  FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typelem = 0;
"#;
