//! Tests of the whole parser: from text to typed instructions, errors and hostile input.

use proptest::prelude::*;

use crate::ast::*;
use crate::{Pos, parse, parse_trigger};

fn file(text: &str) -> Dockerfile {
    match parse(text.as_bytes(), "Dockerfile") {
        Ok(file) => file,
        Err(error) => panic!("{}", error.diagnostic().render(false)),
    }
}

/// The one instruction behind a `FROM`.
fn one(text: &str) -> Kind {
    let file = file(&format!("FROM a\n{text}\n"));
    let [stage] = file.stages.as_slice() else { panic!("{file:?}") };
    let [instruction] = stage.instructions.as_slice() else { panic!("{stage:?}") };
    instruction.kind.clone()
}

fn error(text: &str) -> String {
    parse(text.as_bytes(), "Dockerfile").unwrap_err().to_string()
}

/// The error of an instruction behind a `FROM`, without the prefix that all have.
fn error_of(text: &str) -> String {
    let message = error(&format!("FROM a\n{text}\n"));
    message.strip_prefix("dockerfile parse error on line 2: ").unwrap_or_else(|| panic!("{message}")).to_owned()
}

fn texts(words: &[Word]) -> Vec<&str> {
    words.iter().map(Word::as_str).collect()
}

#[test]
fn stages_and_meta_args() {
    let file = file(
        "# syntax=docker/dockerfile:1\n# check=skip=StageNameCasing\nARG V=1 W\n\n# Base the base stage\n# base what it is\nfrom --platform=$P img:$V As Base\nRUN x\n\nFROM scratch\nFROM base AS c-1.d_e\n",
    );
    assert_eq!(file.directives.syntax.as_ref().unwrap().as_str(), "docker/dockerfile:1");
    assert_eq!(file.directives.check_span.unwrap().first_line(), 2);
    let arg = &file.meta_args[0].arg.args;
    assert_eq!(arg[0].key.as_str(), "V");
    assert_eq!(arg[0].value.as_ref().unwrap().as_str(), "1");
    assert_eq!(arg[0].value.as_ref().unwrap().span.start, Pos::new(3, 7));
    assert!(arg[1].value.is_none());
    let [base, scratch, last] = file.stages.as_slice() else { panic!() };
    assert_eq!(base.name.as_deref(), Some("base"));
    assert_eq!(base.name_as_written.as_deref(), Some("Base"));
    assert_eq!(base.as_keyword.as_deref(), Some("As"));
    assert_eq!(base.platform.as_deref(), Some("$P"));
    assert_eq!(base.platform.as_ref().unwrap().span.start, Pos::new(7, 17));
    assert_eq!(base.base.as_str(), "img:$V");
    assert_eq!(base.doc.as_deref(), Some("what it is"));
    assert_eq!(base.origin.comments.len(), 2);
    assert_eq!(base.origin.name.as_str(), "from");
    assert_eq!(base.instructions[0].origin.span.start, Pos::new(8, 1));
    assert_eq!(base.instructions[0].origin.span.end, Pos::new(8, 6));
    assert!(scratch.name.is_none());
    assert_eq!(last.name.as_deref(), Some("c-1.d_e"));
}

#[test]
fn commands() {
    let Kind::Run(run) = one(
        "RUN --mount=type=cache,target=/x --mount=from=b,target=/y --network=none --security=insecure --device=v.com/d=x,required echo 'a'  b",
    ) else {
        panic!()
    };
    assert_eq!(texts(&run.command.args), ["echo 'a'  b"]);
    assert!(!run.command.exec);
    assert_eq!((run.network, run.security), (Network::None, Security::Insecure));
    assert_eq!(run.mounts[1].from(), Some("b"));
    assert_eq!(run.mounts[0].from(), None);
    assert_eq!((run.devices[0].name.as_str(), run.devices[0].required), ("v.com/d=x", true));
    let Kind::Cmd(cmd) = one("CMD [\"a\", \"b c\"]") else { panic!() };
    assert!(cmd.exec);
    assert_eq!(texts(&cmd.args), ["a", "b c"]);
    assert_eq!(cmd.args[1].span.start, Pos::new(2, 11));
    // Not JSON: a shell form. BuildKit reads an array with something behind it so too.
    for text in ["CMD ['a']", "CMD [\"a\"] x", "CMD [\"\\d\"]"] {
        let Kind::Cmd(cmd) = one(text) else { panic!() };
        assert!(!cmd.exec, "{text}");
    }
    let Kind::Entrypoint(line) = one("ENTRYPOINT") else { panic!() };
    assert!(line.args.is_empty() && !line.exec);
    let Kind::Shell(shell) = one("SHELL [\"/bin/sh\", \"-c\"]") else { panic!() };
    assert_eq!(texts(&shell.args), ["/bin/sh", "-c"]);
}

#[test]
fn heredocs() {
    let Kind::Run(run) = one("RUN <<EOF 3<<-'X' sh\na $b\nEOF\n\tc\n\tX") else { panic!() };
    let [first, second] = run.command.heredocs.as_slice() else { panic!() };
    assert_eq!((first.content.as_str(), first.expand, first.fd), ("a $b\n", true, 0));
    assert_eq!((second.content.as_str(), second.expand, second.fd), ("\tc\n", false, 3));
    assert_eq!(second.chomped(), "c\n");
    assert_eq!(first.span.first_line(), 3);
    let Kind::Copy(copy) = one("COPY a <<f <<-\"g\" /x/\n1\nf\n\t2\n\t\t3\ng") else { panic!() };
    assert_eq!(texts(&copy.sources), ["a"]);
    assert_eq!(copy.inline_files[0].content, "1\n");
    assert!(copy.inline_files[0].expand && !copy.inline_files[1].expand);
    assert_eq!(copy.inline_files[1].content, "2\n3\n");
    assert_eq!(copy.dest.as_str(), "/x/");
    let text = file("FROM a\nRUN cat << EOF\nx\nEOF\nRUN y");
    assert_eq!(text.stages[0].instructions.len(), 2);
    assert_eq!(text.stages[0].instructions[0].origin.span.last_line(), 4);
    assert!(error_of("RUN <<EOF\na").starts_with("unterminated heredoc"));
    assert_eq!(error_of("COPY a <<b\nb"), "COPY cannot accept a heredoc as a destination");
}

#[test]
fn copies() {
    let Kind::Copy(copy) =
        one("COPY --from=b --chown=1:2 --chmod=$M --link --parents=true --exclude=*.o --exclude=x a b/ c")
    else {
        panic!()
    };
    assert_eq!(texts(&copy.sources), ["a", "b/"]);
    assert_eq!(copy.dest.as_str(), "c");
    assert_eq!(copy.from.as_deref(), Some("b"));
    assert_eq!(copy.chmod.as_deref(), Some("$M"));
    assert!(copy.link && copy.parents);
    assert_eq!(texts(&copy.exclude), ["*.o", "x"]);
    let Kind::Add(add) = one("ADD --checksum=sha256:0 --keep-git-dir --unpack=false [\"a b\", \"/c\"]") else {
        panic!()
    };
    assert_eq!(texts(&add.sources), ["a b"]);
    assert_eq!((add.keep_git_dir, add.unpack), (Some(true), Some(false)));
    assert!(!add.link);
}

#[test]
fn pairs() {
    let Kind::Env(env) = one("ENV a=\"b c\" d=$e f=") else { panic!() };
    let all: Vec<_> = env.pairs.iter().map(|p| (p.key.as_str(), p.value.as_str(), p.legacy)).collect();
    assert_eq!(all, [("a", "\"b c\"", false), ("d", "$e", false), ("f", "", false)]);
    assert_eq!(env.pairs[1].value.span.start, Pos::new(2, 15));
    let Kind::Label(label) = one("LABEL a  b  \"c\"") else { panic!() };
    assert_eq!((label.pairs[0].value.as_str(), label.pairs[0].legacy), ("b  \"c\"", true));
}

#[test]
fn config() {
    let Kind::Healthcheck(check) =
        one("HEALTHCHECK --interval=1m30s --timeout=0 --retries=3 --start-period=2s --start-interval=1ms CMD curl x")
    else {
        panic!()
    };
    assert_eq!(check.interval.unwrap().as_secs(), 90);
    assert_eq!((check.timeout, check.retries), (None, 3));
    assert!(matches!(check.test, HealthTest::Cmd(line) if !line.exec && line.args[0].as_str() == "curl x"));
    assert!(matches!(one("HEALTHCHECK none"), Kind::Healthcheck(c) if c.test == HealthTest::None));
    assert!(matches!(one("VOLUME [\" /a \", \"b\"]"), Kind::Volume(v) if texts(&v) == ["/a", "b"]));
    assert!(matches!(one("EXPOSE 80 $P"), Kind::Expose(e) if texts(&e.ports) == ["80", "$P"]));
    assert!(matches!(one("USER a b"), Kind::User(u) if u.as_str() == "a b"));
    assert!(matches!(one("WORKDIR \"/a b\""), Kind::Workdir(w) if w.as_str() == "\"/a b\""));
    assert!(matches!(one("MAINTAINER A <a@b>"), Kind::Maintainer(m) if m.as_str() == "A <a@b>"));
    // Flags of these two are not looked at.
    assert!(matches!(one("STOPSIGNAL --x TERM"), Kind::Stopsignal(s) if s.as_str() == "TERM"));
    assert!(matches!(one("ARG --x a=\"b c\""), Kind::Arg(a) if a.args[0].value.as_deref() == Some("\"b c\"")));
}

#[test]
fn onbuild() {
    let Kind::Onbuild(on) = one("OnBuild  RUN  <<EOF\nx\nEOF") else { panic!() };
    assert_eq!(on.expression, "RUN  <<EOF\nx\nEOF");
    assert_eq!(on.trigger.as_str(), "RUN");
    let again = parse_trigger(&on.expression, "ONBUILD").unwrap();
    assert!(matches!(again.kind, Kind::Run(run) if run.command.heredocs[0].content == "x\n"));
    assert!(parse_trigger("RUN a\nRUN b", "x").is_err());
    assert!(parse_trigger("FROM a", "x").is_err());
    assert!(parse_trigger("", "x").is_err());
    assert_eq!(error_of("ONBUILD ONBUILD RUN x"), "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    assert_eq!(error_of("ONBUILD from x"), "FROM isn't allowed as an ONBUILD trigger");
}

#[test]
fn errors_in_the_reference_builder_s_words() {
    for (text, want) in [
        ("FRM x", "unknown instruction: FRM (did you mean FROM?)"),
        ("xyzzy", "unknown instruction: xyzzy"),
        ("ENV", "ENV requires at least one argument"),
        ("env a", "ENV must have two arguments"),
        ("ENV =x", "ENV names can not be blank"),
        ("ENV A=1 B", "Syntax error - can't find = in \"B\". Must be of the form: name=value"),
        ("LABEL", "LABEL requires at least one argument"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =x", "ARG names can not be blank"),
        ("ENTRYPOINT --x y", "unknown flag: --x"),
        ("FROM --platfrom=a b", "unknown flag: --platfrom (did you mean platform?)"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a AS 1abc", "invalid name for build stage: \"1abc\", name can't start with a number or contain symbols"),
        ("CMD [\"a\", 1]", "when using JSON array syntax, arrays must be comprised of strings only"),
        (
            "COPY x",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("COPY --link=x a b", "expecting boolean value for flag --link, not: x"),
        ("HEALTHCHECK --interval=5 CMD x", "time: missing unit in duration \"5\""),
        ("HEALTHCHECK --interval=5us CMD x", "Interval \"interval\" cannot be less than 1ms"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK FOO x", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("SHELL sh -c", "SHELL requires the arguments to be in JSON form"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("VOLUME [\" \"]", "VOLUME specified can not be an empty string"),
        ("USER", "USER requires exactly one argument"),
        ("RUN --network=x y", "invalid network mode \"x\""),
        ("RUN --security=x y", "security \"x\" is not valid"),
        ("RUN --mount=from=$x,target=/a y", "'from' doesn't support variable expansion, define alias stage instead"),
        (
            "RUN --mount='a\"' y",
            "failed to parse csv mounts: parse error on line 1, column 2: bare \" in non-quoted-field",
        ),
        ("RUN --device=a,name=b x", "device name already set to a"),
        ("\\", "unknown instruction: "),
    ] {
        assert_eq!(error_of(text), want, "{text}");
    }
    assert_eq!(error("RUN x\nFROM a"), "dockerfile parse error on line 1: no build stage in current context");
    assert_eq!(error("# a\n\n"), "file with no instructions");
    assert_eq!(error("ARG x"), "dockerfile contains no stages to build");
    assert_eq!(error("# escape=x\nFROM a"), "invalid escape token 'x' does not match ` or \\");
    assert_eq!(error("# escape=`\n# Escape=`\nFROM a"), "only one escape parser directive can be used");
    assert_eq!(error("# check=foo=1\nFROM a"), "failed to parse check options: invalid check option \"foo\"");
}

#[test]
fn rendered_errors() {
    let render = |text: &str| parse(text.as_bytes(), "Dockerfile").unwrap_err().diagnostic().render(false);
    let all = [
        "FROM busybox\nFRM x\n",
        "FROM a\nCOPY --form=b \\\n  x \\\n  y\n",
        "FROM a\nRUN [\"a\", \\\n  1]\n",
        "FROM a\nENV A=1 \\\n    B\n",
        "FROM a\n\tHEALTHCHECK --interval=5 CMD x\n",
        "FROM a\nRUN <<EOF\nfoo\n",
        "RUN x\n",
        "",
    ];
    insta::assert_snapshot!(all.map(render).join("\n\n"));
}

#[test]
fn encodings() {
    assert_eq!(file("\u{feff}FROM é\r\n").stages[0].base.as_str(), "é");
    let parsed = parse(b"# caf\xe9\nFROM a # \nLABEL a=\xe9\n", "D");
    assert_eq!(
        parsed.unwrap_err().to_string(),
        "dockerfile parse error on line 2: FROM requires either one or three arguments"
    );
    let parsed = parse(b"# caf\xe9\nFROM a\nMAINTAINER Jos\xe9\nRUN a \\\n # \xe9\n b", "D").unwrap();
    assert!(matches!(&parsed.stages[0].instructions[0].kind, Kind::Maintainer(m) if m.as_str() == "Jos\u{fffd}"));
    for bad in [&b"FROM a\nRUN a \\\n \xe9"[..], b"FROM a\nCOPY <<E /x\n\xe9\nE\n"] {
        let error = parse(bad, "D").unwrap_err();
        assert_eq!(error.to_string(), "dockerfile parse error on line 2: line is not valid UTF-8");
        assert_eq!(error.diagnostic().span.unwrap().first_line(), 3);
    }
}

#[test]
fn warnings() {
    let text = "FROM a\nRUN a \\\n\n b\nCMD ['a', \"b\"]\nRUN [ -f x ] && [ \"$a\" = 'b' ]\nRUN [\"a\",]\nCMD [\"a\"]";
    let file = file(text);
    let lines: Vec<(bool, u32)> = file
        .warnings
        .iter()
        .map(|w| (matches!(w, Warning::EmptyContinuation(_)), w.diagnostic(&file.source).span.unwrap().first_line()))
        .collect();
    assert_eq!(lines, [(true, 4), (false, 5), (false, 7)]);
}

#[test]
fn size_has_a_limit() {
    let text = format!("FROM a\nRUN {}", "x".repeat(16 << 20));
    assert_eq!(error(&text), "Dockerfile is larger than 16 MiB");
}

#[test]
fn hostile_sizes_take_linear_time() {
    let n = 100_000;
    let long = [
        format!("FROM a\nRUN {}", "x".repeat(8 * n)),
        format!("FROM a\n{}", "ONBUILD ".repeat(n)),
        format!("FROM a\nRUN {}", "[".repeat(n)),
        format!("FROM a\nRUN {}", "\\\n".repeat(n)),
        format!("FROM a\nENV {}", "a=b ".repeat(n)),
        format!("FROM a\nRUN {} x", "--mount=type=cache,target=/a ".repeat(n / 10)),
        format!("FROM a\nRUN {}", "<<A ".repeat(n)),
        format!("FROM a\nRUN {}\n{}", "<<A ".repeat(n / 10), "A\n".repeat(n / 10)),
        format!("FROM a\nRUN {}", "<<\"${a:-".repeat(n / 10)),
        format!("FROM a\nCOPY {} /x", "\\\n a".repeat(n)),
        "FROM a\n".repeat(n),
        format!("FROM a\n{}", "# x\n".repeat(n)),
        format!("FROM a\nRUN --x{}", "'".repeat(n)),
    ];
    let start = std::time::Instant::now();
    for text in &long {
        let name: String = text.chars().take(24).collect();
        let one = std::time::Instant::now();
        if let Err(error) = parse(text.as_bytes(), "Dockerfile") {
            assert!(error.diagnostic().render(false).len() < 5_000_000, "{name}");
        }
        println!("{name:?}: {:?}", one.elapsed());
    }
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}

proptest! {
    #[test]
    fn any_bytes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&text, "Dockerfile");
    }

    #[test]
    fn near_dockerfiles_never_panic(text in proptest::collection::vec(prop_oneof![
        Just("FROM a AS b\n"), Just("RUN "), Just("COPY "), Just("ENV "), Just("ONBUILD "), Just("HEALTHCHECK "),
        Just("ARG "), Just("CMD "), Just("VOLUME "), Just("EXPOSE "), Just("--mount=type=cache,"), Just("--link "),
        Just("\\\n"), Just("\n"), Just("# c\n"), Just("\""), Just("'"), Just("["), Just("]"), Just("a=b "), Just("é"),
        Just("<<E "), Just("E\n"), Just("\t"), Just("\r"), Just("$x"), Just("`"), Just("\u{feff}"), Just("--"),
    ], 0..30)) {
        let text = text.concat();
        for text in [text.clone(), format!("FROM a\n{text}")] {
            match parse(text.as_bytes(), "Dockerfile") {
                Ok(file) => { crate::lint::lint(&file, &Default::default()); }
                Err(error) => { error.diagnostic().render(true); }
            }
            let _ = parse_trigger(&text, "x");
            let _ = crate::dump::dump(text.as_bytes(), "x");
        }
    }

    /// Spans of words point at the words.
    #[test]
    fn spans_point_home(words in proptest::collection::vec("[a-zé$/.]{1,6}", 2..6), cuts in proptest::collection::vec(any::<bool>(), 6)) {
        let mut text = String::from("FROM a\nCOPY");
        for (word, cut) in words.iter().zip(&cuts) {
            text.push_str(if *cut { " \\\n  # note\n\t" } else { " " });
            text.push_str(word);
        }
        let file = parse(text.as_bytes(), "Dockerfile").unwrap();
        let Kind::Copy(copy) = &file.stages[0].instructions[0].kind else { panic!() };
        for word in copy.sources.iter().chain([&copy.dest]) {
            let line = text.lines().nth(word.span.start.line as usize - 1).unwrap();
            let range = word.span.start.column as usize - 1..word.span.end.column as usize - 1;
            prop_assert_eq!(&line[range], word.as_str());
        }
    }
}
