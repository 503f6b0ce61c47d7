//! `dlock man` and `dlock completions`.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::ending::{Ending, USAGE};
use crate::telling::say;

/// Those whose options are on the page of all.
const ON_THE_PAGE: [&str; 4] = ["run", "holder", "list", "doctor"];

/// Prints the completions for a shell.
pub(crate) fn completions(shell: Shell) -> Ending {
    // First into memory: a reader that has gone is no reason to panic.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dlock", &mut script);
    Ending::of_output(print(&script))
}

/// Prints the manual page of a command, or of all together.
pub(crate) fn page(command: Option<&str>) -> Ending {
    let mut all = Cli::command();
    // Names the commands by their full names, and gives them the options of all.
    all.build();
    let mut page = Vec::new();
    let rendered = match command {
        None => render_all(all, &mut page),
        Some(name) => match all.find_subcommand(name) {
            Some(found) => Man::new(found.clone()).render(&mut page),
            None => {
                say(&format!("there is no command `{name}`"));
                return Ending::Status(USAGE);
            }
        },
    };
    Ending::of_output(rendered.and_then(|()| print(&page)))
}

/// The page of `dlock`, and what each command has on its own.
fn render_all(all: clap::Command, page: &mut Vec<u8>) -> io::Result<()> {
    Man::new(all).render(page)?;
    // As they are without the options of all.
    let commands = Cli::command();
    let commands = commands.get_subcommands();
    for command in commands.filter(|command| ON_THE_PAGE.contains(&command.get_name())) {
        let title = format!("DLOCK {}", command.get_name().to_uppercase());
        writeln!(page, ".SH \"{title}\"")?;
        let mut own = Vec::new();
        let man = Man::new(command.clone().disable_help_flag(true));
        man.render_options_section(&mut own)?;
        man.render_extra_section(&mut own)?;
        page.extend(within(&own));
    }
    Ok(())
}

/// Sections as a part of another: without their titles, and what each text begins with.
fn within(sections: &[u8]) -> Vec<u8> {
    const LEFT_OUT: [&[u8]; 3] = [b".SH ", b".ie ", b".el "];
    let lines = sections.split_inclusive(|byte| *byte == b'\n');
    let kept = lines.filter(|line| !LEFT_OUT.iter().any(|out| line.starts_with(out)));
    let titled = kept.map(|line| match line {
        b"EXIT STATUS:\n" => &b".SS \"EXIT STATUS\"\n"[..],
        b"EXAMPLES:\n" => b".SS EXAMPLES\n",
        line => line,
    });
    titled.flatten().copied().collect()
}

fn print(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()
}
