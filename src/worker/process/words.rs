//! Commands without shell syntax: a shell would do nothing to them but split them at their blanks.
//!
//! Not a parser of shell language: a command with a quote, a special character, or a character that might be special is
//! left to the shell.
//!
//! Invariant: a command that is split here has the same words in dash and in bash.

/// The builtins and reserved words of dash and bash; and `env` and `printenv`, which print the environment in an order
/// that only the shell knows.
const SHELLS_OWN: &str = ". : alias bg bind break builtin caller case cd chdir command compgen complete compopt continue \
    coproc declare dirs disown do done echo elif else enable env esac eval exec exit export false fc fg \
    fi for function getopts hash help history if in jobs kill let local logout mapfile popd printenv \
    printf pushd pwd read readarray readonly return select set shift shopt source suspend test then time \
    times trap true type typeset ulimit umask unalias unset until wait while";

/// The words of a command: the program, and its arguments. None where only a shell can tell them.
pub fn words(command: &str) -> Option<Vec<&str>> {
    if !command.bytes().all(|byte| is_plain(byte) || is_blank(byte)) {
        return None;
    }
    let words: Vec<&str> = command.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
    let first = *words.first()?;
    let is_path = first.starts_with('/');
    let is_name = !first.contains('/') && first.starts_with(|start: char| start.is_ascii_alphanumeric());
    let name = first.rsplit('/').next();
    let is_program =
        (is_path || is_name) && !first.contains('=') && !SHELLS_OWN.split(' ').any(|own| Some(own) == name);
    is_program.then_some(words)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Whether dash and bash take this byte literally in every word but the first.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_./,:+@%^-=".contains(&byte) || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn plain(command: &str, expect: &[&str]) {
        assert_eq!(words(command).as_deref(), Some(expect), "{command:?}");
    }

    #[track_caller]
    fn shells(command: &str) {
        assert_eq!(words(command), None, "{command:?}");
    }

    #[test]
    fn a_plain_command_is_split_at_blanks_and_tabs() {
        plain("ls", &["ls"]);
        plain("  sleep \t 5  ", &["sleep", "5"]);
        plain("/usr/bin/rsync -av --delete /a/ host:/b_c", &["/usr/bin/rsync", "-av", "--delete", "/a/", "host:/b_c"]);
        plain("dd if=/dev/zero of=x bs=1M", &["dd", "if=/dev/zero", "of=x", "bs=1M"]);
        plain(
            "php artisan a:b user@host 50% a^b 1,2 +x",
            &["php", "artisan", "a:b", "user@host", "50%", "a^b", "1,2", "+x"],
        );
        plain("cat /tmp/né 表.txt", &["cat", "/tmp/né", "表.txt"]);
        plain("7z x", &["7z", "x"]);
        plain("sleep echo", &["sleep", "echo"]);
    }

    #[test]
    fn a_command_with_syntax_is_left_to_the_shell() {
        for command in ["ls 'a b'", "ls \"a\"", "ls a\\ b", "ls $HOME", "ls ${A}", "ls $(pwd)", "ls `pwd`", "ls $((1))"]
        {
            shells(command);
        }
        for command in ["ls *", "ls a?", "ls [ab]", "ls a]", "ls ~", "ls a:~/b", "ls {a,b}", "ls !x", "! ls", "!!"] {
            shells(command);
        }
        for command in
            ["ls >x", "ls 2>&1", "ls <x", "ls <<E", "ls >>x", "ls &>x", "ls <(ls)", "ls & ", "ls && ls", "ls || ls"]
        {
            shells(command);
        }
        for command in [
            "ls | wc", "ls; ls", "ls;", "(ls)", "{ ls; }", "ls # all", "#ls", "ls a#b", "ls\nls", "ls\n", "ls\r",
            "ls\u{b}a",
        ] {
            shells(command);
        }
        for command in ["A=b ls", "A=b", "a+=b ls", "A[0]=b ls", "", "  ", "\t", "ls \0", "ls \u{7f}", "ls \u{1}"] {
            shells(command);
        }
    }

    #[test]
    fn a_builtin_or_reserved_word_is_left_to_the_shell() {
        for command in SHELLS_OWN.split(' ') {
            shells(command);
            shells(&format!(" {command} x"));
            shells(&format!("/usr/bin/{command}"));
        }
        for command in ["[ -f x ]", "[[ -f x ]]", "exec sleep 5", "time ls", "echo -n x", "if", "}", "while true"] {
            shells(command);
        }
    }

    #[test]
    fn a_first_word_that_only_looks_plain_is_left_to_the_shell() {
        for command in ["-c ls", "+x", "%1", "./run", "../run", "bin/run", "..", "_x", "^a^b", ",", "@x", "=ls", "é"] {
            shells(command);
        }
    }

    /// A newer bash may have builtins that the list lacks.
    #[test]
    fn every_builtin_and_reserved_word_is_known() {
        let Ok(bash) = std::process::Command::new("bash").args(["-c", "compgen -bk"]).output() else { return };
        let names = String::from_utf8(bash.stdout).expect("they are ASCII");
        let unknown: Vec<&str> = names.lines().filter(|name| words(name).is_some()).collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }
}
