//! The image config along the way: what `scratch` begins with, what a base hands down, what the target gets.

use memobuild_image::{ContainerConfig, ImageConfig, Platform};

/// PATH where an image sets none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The config of a base without one: `scratch`, or a context that is no image.
pub(crate) fn empty(platform: &Platform) -> ImageConfig {
    let mut config = ContainerConfig { working_dir: "/".to_owned(), ..ContainerConfig::default() };
    if platform.os != "windows" {
        config.env.push(format!("PATH={DEFAULT_PATH}"));
    }
    ImageConfig { platform: platform.clone(), config, ..ImageConfig::default() }
}

/// What a stage takes over from its base image. Fields that are not known say nothing of the new image; layers,
/// history and times belong to the base.
pub(crate) fn inherited(base: &ImageConfig) -> ImageConfig {
    let config = ContainerConfig { other: Default::default(), ..base.config.clone() };
    ImageConfig { author: base.author.clone(), platform: base.platform.clone(), config, ..ImageConfig::default() }
}

/// Sets a variable in place, or at the end.
pub(crate) fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    match env.iter_mut().find(|known| known.split('=').next() == Some(name)) {
        Some(known) => *known = pair,
        None => env.push(pair),
    }
}

/// Whether a variable is set.
pub(crate) fn has_env(env: &[String], name: &str) -> bool {
    env.iter().any(|pair| pair.split('=').next() == Some(name))
}

/// The platform that the image says it is for: that which was asked for, and without a wish that of its base.
pub(crate) fn set_platform(image: &mut ImageConfig, wanted: &Platform, implicit: bool) {
    if !implicit {
        let same = wanted.os == image.platform.os && wanted.architecture == image.platform.architecture;
        image.platform.os.clone_from(&wanted.os);
        image.platform.architecture.clone_from(&wanted.architecture);
        if !wanted.variant.is_empty() || !same {
            image.platform.variant.clone_from(&wanted.variant);
        }
        if !wanted.os_version.is_empty() || !same {
            image.platform.os_version.clone_from(&wanted.os_version);
        }
        if !wanted.os_features.is_empty() {
            image.platform.os_features.clone_from(&wanted.os_features);
        }
    }
    image.platform = image.platform.normalised();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_keep_their_place() {
        let mut env = vec!["A=1".to_owned(), "AB=2".into()];
        set_env(&mut env, "A", "3");
        set_env(&mut env, "C", "=");
        assert_eq!(env, ["A=3", "AB=2", "C=="]);
        assert!(has_env(&env, "AB") && !has_env(&env, "B"));
    }

    #[test]
    fn the_platform_of_a_base_stays_without_a_wish() {
        let arm: Platform = "linux/arm/v6".parse().unwrap();
        let mut image = empty(&arm);
        set_platform(&mut image, &"linux/amd64".parse().unwrap(), true);
        assert_eq!(image.platform, arm);
        set_platform(&mut image, &"linux/amd64".parse().unwrap(), false);
        assert_eq!(image.platform.to_string(), "linux/amd64");
    }
}
