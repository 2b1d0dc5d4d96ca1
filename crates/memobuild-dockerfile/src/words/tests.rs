use super::*;
use proptest::prelude::*;

fn env() -> BTreeMap<String, String> {
    [
        ("PWD", "/home"),
        ("SHELL", "bash"),
        ("NULL", ""),
        ("KOREAN", "한국어"),
        ("space", "abc  def"),
        ("path", "a/b/c.tar.gz"),
        ("multi", "a.b\nc.d"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into()
}

fn text(word: &str) -> Result<String, String> {
    Lexer::new('\\').expand(word, &env()).map(|e| e.text).map_err(|e| e.reason)
}

fn words(word: &str) -> Vec<String> {
    Lexer::new('\\').expand(word, &env()).unwrap().words
}

#[test]
fn quotes_and_escapes() {
    for (word, want) in [
        ("hello", "hello"),
        ("he'll'o", "hello"),
        (r"he\'llo", "he'llo"),
        (r"abc\tdef", "abctdef"),
        (r#""abc\tdef""#, r"abc\tdef"),
        (r#""abc\\tdef""#, r"abc\tdef"),
        (r"'abc\tdef'", r"abc\tdef"),
        (r"hello\", "hello"),
        (r"hello\\", r"hello\"),
        (r"'hello\'", r"hello\"),
        (r#""hel'lo""#, "hel'lo"),
        ("$.", "$."),
        ("a$", "a$"),
        ("he$1x", "hex"),
        (r"he\$PWD", "he$PWD"),
        (r"he\\$PWD", r"he\/home"),
        (r#""he\$PWD""#, "he$PWD"),
        (r#""he\\$PWD""#, r"he\/home"),
        (r"\${}xx", "${}xx"),
        ("'he${XX}'", "he${XX}"),
        (r#""he'$PWD'""#, "he'/home'"),
        ("안'녕'$KOREAN", "안녕한국어"),
        ("a < b", "a < b"),
        ("a << b", "a << b"),
    ] {
        assert_eq!(text(word).as_deref(), Ok(want), "{word}");
    }
    for bad in ["he'llo", r"he\\'llo", "\"hello", r#""hello\""#, "'hello", "\""] {
        assert!(text(bad).is_err(), "{bad}");
    }
}

#[test]
fn substitutions() {
    for (word, want) in [
        ("he${hi}xx", "hexx"),
        ("he${PWD}", "he/home"),
        ("he${XXX:-000}xx", "he000xx"),
        ("he${PWD:-000}xx", "he/homexx"),
        ("he${XXX:-${YYY:-yyy}}xx", "heyyyxx"),
        ("${NULL-x}|${NULL:-x}|${XXX-x}", "|x|x"),
        ("${NULL+x}|${NULL:+x}|${XXX+x}|${PWD:+x}", "x|||x"),
        ("he${PWD?}${PWD:?}${NULL?}", "he/home/home"),
        (r"he${XXX:-\$PWD:}xx", "he$PWD:xx"),
        (r"he${XXX:-\${PWD}z}xx", "he${PWDz}xx"),
        ("${aaa}}", "}"),
        ("${aaa:-bbb {foo}", "bbb {foo"),
        ("${XXX:-'a}b'}", "a}b"),
        ("$999aaa${001:-b}", "aaab"),
        ("$@@@", "@@"),
        ("${@:-b}${#:-c}$$", "bc"),
        ("${path#*/}", "b/c.tar.gz"),
        ("${path##*/}", "c.tar.gz"),
        ("${path%.*}", "a/b/c.tar"),
        ("${path%%.*}", "a/b/c"),
        ("${path%x}${path#?}", "a/b/c.tar.gz/b/c.tar.gz"),
        (r"${path/\//-}", "a-b/c.tar.gz"),
        (r"${path//\//-}", "a-b-c.tar.gz"),
        ("${path//./$1}", "a/b/ctargz"),
        ("${path/./\\$1}", r"a/b/c\$1tar.gz"),
        ("${multi%%.*}", "a.b\nc"),
        ("${XXX/a/b}${XXX#a}", ""),
    ] {
        assert_eq!(text(word).as_deref(), Ok(want), "{word}");
    }
}

#[test]
fn bad_substitutions() {
    for (word, want) in [
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${{aaa}", "syntax error: bad substitution"),
        ("${:}", "syntax error: bad substitution"),
        ("${aaa:-bbb", "syntax error: missing '}'"),
        ("${aaa:-bbb ${foo}", "syntax error: missing '}'"),
        ("he${.}", "unsupported modifier (.) in substitution"),
        ("${XXX:YYY}", "unsupported modifier (:Y) in substitution"),
        ("${PWD:=000}", "unsupported modifier (:=) in substitution"),
        ("${PWD:#a}", "unsupported modifier (:#) in substitution"),
        ("${XXX?}", "XXX: is not allowed to be unset"),
        ("${NULL:?}", "NULL: is not allowed to be empty"),
        ("${XXX:?no such thing}", "XXX: no such thing"),
        ("${PWD/one}", "syntax error: missing '/' in ${}"),
        (r"${PWD#\a}", r"invalid pattern (\a) in substitution: invalid escape '\a'"),
    ] {
        assert_eq!(text(word).unwrap_err(), want, "{word}");
    }
    let error = Lexer::new('\\').expand("${p/one", &env()).unwrap_err();
    assert_eq!(error.to_string(), "failed to process \"${p/one\": syntax error: missing '/' in ${}");
}

#[test]
fn splitting() {
    for (word, want) in [
        ("hello there     ", vec!["hello", "there"]),
        ("hello${space}bye", vec!["helloabc", "defbye"]),
        (r#"hello"${space}"bye"#, vec!["helloabc  defbye"]),
        (r"hello\ there", vec!["hello there"]),
        (r#""" a"#, vec!["a"]),
        ("80${XXX:-80} $PWD", vec!["8080", "/home"]),
        ("a <<  b c", vec!["a", "<<  b", "c"]),
        ("", vec![]),
    ] {
        assert_eq!(words(word), want, "{word}");
    }
}

#[test]
fn settings() {
    let with = |lexer: Lexer, word: &str| lexer.expand(word, &env()).unwrap().text;
    let base = Lexer::new('\\');
    let raw = Lexer { raw_quotes: true, ..base };
    assert_eq!(with(raw, r#"'a' "$PWD""#), r#"'a' "/home""#);
    let raw = Lexer { raw_escapes: true, ..base };
    assert_eq!(with(raw, r#"a\ b"c\"d""#), r#"a\ bc\"d"#);
    let here = Lexer { skip_quotes: true, ..base };
    assert_eq!(with(here, r#"it's "$PWD" \$x"#), r#"it's "/home" $x"#);
    let keep = Lexer { skip_unset: true, ..base };
    assert_eq!(with(keep, "$a ${a} ${a:-b} ${a#b} ${a/b/c} $PWD"), "$a ${a} ${a:-b} ${a#b} ${a/b/c} /home");
    assert_eq!(with(Lexer::new('`'), r"c:\a`$b"), r"c:\a$b");
}

#[test]
fn names_are_reported() {
    let out = Lexer::new('\\').expand("$PWD ${a:-$b} '$c'", &env()).unwrap();
    assert_eq!(out.matched.into_iter().collect::<Vec<_>>(), ["PWD"]);
    assert_eq!(out.unmatched.into_iter().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn deep_nesting_is_an_error() {
    let deep = "${a:-".repeat(1_000_000);
    assert!(text(&deep).unwrap_err().contains("nested"));
    let fine = format!("{}x{}", "${a:-".repeat(90), "}".repeat(90));
    assert_eq!(text(&fine).as_deref(), Ok("x"));
}

proptest! {
    #[test]
    fn never_panics(word in r#"[ab$\{\}:\-+?#%/*\\'"<` é\n]{0,40}"#, flags in any::<[bool; 5]>()) {
        let lexer = Lexer {
            escape: if flags[0] { '\\' } else { '`' },
            raw_quotes: flags[1],
            raw_escapes: flags[2],
            skip_quotes: flags[3],
            skip_unset: flags[4],
        };
        let env: BTreeMap<String, String> = [("a".to_owned(), "xé*a".to_owned())].into();
        let _ = lexer.expand(&word, &env);
    }

    #[test]
    fn plain_text_stays(word in r"[a-zA-Z0-9_./:=@é,-]{0,40}") {
        prop_assert_eq!(text(&word).unwrap(), word);
    }
}
