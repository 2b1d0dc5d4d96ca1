//! Many builds at once in one cache directory.

use std::{
    fs,
    process::{Child, Stdio},
};

use crate::{
    common::{Place, text},
    project::{damaged, is_clean, under_way},
    support::{busybox_layer, layout},
};

const STEPS: &str = "FROM base AS a\nRUN head -c 300000 /dev/zero >/a && sleep 0.1\nRUN cat /a /a >/aa\n\
    FROM base AS b\nRUN mkdir /b && echo b >/b/b && sleep 0.2\nRUN echo b2 >>/b/b && ls /b >/b/list\n\
    FROM base\nCOPY --from=a /aa /aa\nCOPY --from=b /b /b\nCOPY own /own\nRUN cat /b/b /own >/end && wc -c /aa >>/end\n";

/// Four projects that share their first stages; of the last two all steps are others'.
const PROJECTS: usize = 4;
/// Builds of each.
const TIMES: usize = 4;

fn dockerfile(number: usize) -> String {
    if number < 2 { STEPS.to_owned() } else { STEPS.replace("RUN ", &format!("RUN : {number} && ")) }
}

fn start(place: &Place, cache: &str, number: usize, output: &str) -> Child {
    let context = format!("p{number}");
    let output = format!("type=oci,dest={output}");
    let base = ["--build-context", "base=oci-layout://base"];
    let mut command = place.command(env!("CARGO_BIN_EXE_memobuild"));
    command.args(["build", "--progress=plain", "--reproducible"]).args(base).args(["--output", &output, &context]);
    command.env("MEMOBUILD_CACHE_DIR", place.path(cache));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn image(place: &Place, child: Child, output: &str) -> Vec<u8> {
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{output}: {}", text(&out.stderr));
    fs::read(place.path(output)).unwrap()
}

#[test]
fn sixteen_builds_at_once() {
    let Some(layer) = busybox_layer() else { return };
    let place = Place::new();
    layout(&place.path("base"), &[layer]);
    for number in 0..PROJECTS {
        place.write(&format!("p{number}/Dockerfile"), &dockerfile(number));
        place.write(&format!("p{number}/own"), &format!("project {number}\n"));
        place.write(&format!("p{number}/.dockerignore"), "Dockerfile\n");
    }
    let expected: Vec<Vec<u8>> = (0..PROJECTS)
        .map(|number| {
            let cache = format!("../reference{number}");
            image(&place, start(&place, &cache, number, "reference.tar"), "reference.tar")
        })
        .collect();
    assert!((1..PROJECTS).all(|number| expected[number] != expected[0]), "they are different projects");
    let mut builds: Vec<(usize, String, Child)> = (0..PROJECTS * TIMES)
        .map(|n| {
            let output = format!("out{n}.tar");
            (n % PROJECTS, output.clone(), start(&place, "../cache", n % PROJECTS, &output))
        })
        .collect();
    // All the while nothing looks wrong, and what they have is left to them.
    let mut looks = 0;
    while builds.iter_mut().any(|(.., child)| child.try_wait().unwrap().is_none()) {
        is_clean(&place);
        let said = place.stdout(&["doctor", "--clean"]);
        assert!(said.starts_with("nothing was left"), "{said}");
        looks += 1;
    }
    let mut ran = 0;
    for (number, output, child) in builds {
        let out = child.wait_with_output().unwrap();
        let shown = text(&out.stderr);
        assert!(out.status.success(), "{output}: {shown}");
        assert!(fs::read(place.path(&output)).unwrap() == expected[number], "{output} is another");
        ran += shown.lines().filter(|line| line.contains(" DONE ")).count();
    }
    println!("{} builds at once: {ran} steps and transfers done, {looks} looks meanwhile", PROJECTS * TIMES);
    is_clean(&place);
    assert_eq!(under_way(&place), Vec::<String>::new());
    assert_eq!(damaged(&place), Vec::<std::path::PathBuf>::new());
}
