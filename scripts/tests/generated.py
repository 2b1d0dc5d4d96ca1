"""Helper of scripts/tests/generated: `kubernetes FILE...` checks manifests, `same` compares them with those that are kept in
deploy/, `pods` runs Jobs' containers, `run` the commands of CI files."""
import argparse, base64, json, os, re, shutil, signal, socket, subprocess, sys, time, urllib.error, urllib.request
from pathlib import Path

import yaml


def fail(why):
    sys.exit(f"generated: {why}")


def kubernetes(files):
    import kubernetes_validate
    version = kubernetes_validate.latest_version()
    for file in files:
        documents = [d for d in yaml.safe_load_all(Path(file).read_text()) if d]
        for document in documents:
            kubernetes_validate.validate(document, version, strict=True)
        references(file, documents)
        print(f"ok -- {len(documents)} objects of {Path(file).name}, Kubernetes {version}")


def same(memobuild, directory):
    """The files in deploy/kubernetes are what generate-k8s writes, without the Secrets."""
    image = ["--image", "registry.example/memobuild:1"]
    cases = {"server.yml": ["--server"],
             "job.yml": ["--git", "https://git.example/app.git#main", "--tag", "registry.example/app:1", "--registry-secret",
                         "registry"]}
    for name, options in cases.items():
        made = yaml.safe_load_all(subprocess.check_output([memobuild, "generate-k8s", *image, *options], text=True))
        kept = [d for d in yaml.safe_load_all((Path(directory) / name).read_text()) if d]
        if kept != [d for d in made if d["kind"] != "Secret"]:
            fail(f"deploy/kubernetes/{name} is not what generate-k8s writes")
        print(f"ok -- {name} is what generate-k8s writes")


def pods(args):
    """Runs the container of each Job in a bundle that is confined as its security contexts and Kubernetes' defaults say,
    and looks at the mode in which memobuild runs a step there."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "crates/memobuild-sandbox/tests/container"))
    import bundle
    expected = {"userns": "exact", "user": "exact", "root": "chroot"}
    rootfs = Path(args.bundle) / "rootfs"
    for run_as, mode in expected.items():
        text = subprocess.check_output([args.memobuild, "generate-k8s", "--image", "x", "--git", "https://x", "--run-as",
                                        run_as], text=True)
        pod = yaml.safe_load(text)["spec"]["template"]["spec"]
        container, own_ids = pod["containers"][0], pod.get("hostUsers") is False
        env = {e["name"]: e["value"] for e in container["env"] if "value" in e}
        security = {**pod["securityContext"], **container["securityContext"]}
        config = bundle.config(["memobuild", "build", "--progress", "plain", "/context"])
        process, linux = config["process"], config["linux"]
        user = security["runAsUser"]
        process["user"] = {"uid": user, "gid": security["runAsGroup"]}
        process["env"] = ["PATH=/bin"] + [f"{name}={value}" for name, value in env.items()]
        process["noNewPrivileges"] = security.get("allowPrivilegeEscalation") is False
        if user != 0 or security.get("capabilities", {}).get("drop") == ["ALL"]:
            process["capabilities"] = {kind: [] for kind in process["capabilities"]}
        if security["seccompProfile"]["type"] == "Unconfined":
            del linux["seccomp"]
        if security.get("procMount") == "Unmasked":
            del linux["maskedPaths"], linux["readonlyPaths"]
        if own_ids:
            linux["namespaces"].append({"type": "user"})
            for ids in ["uidMappings", "gidMappings"]:
                linux[ids] = [{"containerID": 0, "hostID": 200000, "size": 65536}]
        for mount in container["volumeMounts"]:
            config["mounts"].append({"destination": mount["mountPath"], "type": "tmpfs", "source": "tmpfs",
                                     "options": ["mode=1777"]})
        (Path(args.bundle) / "config.json").write_text(json.dumps(config))
        owner = "200000:200000" if own_ids else "0:0"
        subprocess.run(["chown", "-R", owner, str(rootfs)], check=True)
        done = subprocess.run([args.runtime, "run", f"memobuild-pod-{os.getpid()}"], cwd=args.bundle, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0 or f"sandbox: {mode}:" not in done.stdout:
            fail(f"--run-as {run_as}: expected a build in mode {mode}:\n{done.stdout}")
        print(f"ok -- a pod with --run-as {run_as}: mode {mode}")


def references(file, documents):
    """What a pod mounts is one of its volumes, and what a Service or Deployment selects are labels of a pod."""
    pods = [d["spec"]["template"] for d in documents if d["kind"] in ("Deployment", "Job")]
    for pod in pods:
        volumes = {v["name"] for v in pod["spec"].get("volumes", [])}
        for container in pod["spec"]["containers"]:
            mounts = {m["name"] for m in container.get("volumeMounts", [])}
            if mounts != volumes:
                fail(f"{file}: mounts {mounts}, volumes {volumes}")
    for document in documents:
        if document["kind"] == "Service":
            selected = document["spec"]["selector"].items()
            if not any(selected <= pod["metadata"]["labels"].items() for pod in pods):
                fail(f"{file}: the Service selects no pod")


class Server:
    """A process that listens on a port of loopback."""

    def __init__(self, command, port, log, env=None):
        self.port, self.log = port, log
        with open(log, "wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=env)
        for _ in range(1500):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.02)
        self.stop()
        fail(f"{command[0]} did not start:\n{Path(log).read_text()}")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Run:
    USER, PASSWORD = "ci", "a pass:word"

    def __init__(self, args):
        self.memobuild, self.work = os.path.abspath(args.memobuild), Path(args.work)
        self.work.mkdir(parents=True)
        self.base = args.base
        self.source = self.work / "source"
        self.registry_port, self.server_port = free_port(), free_port()
        self.registry = f"127.0.0.1:{self.registry_port}"
        self.sha256 = subprocess.check_output(["sha256sum", self.memobuild], text=True).split()[0]
        self.servers = []

    def start(self):
        hashed = subprocess.check_output(["htpasswd", "-nbB", self.USER, self.PASSWORD], text=True)
        (self.work / "htpasswd").write_text(hashed)
        config = self.work / "registry.yml"
        config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {self.work}/registry}}}}\n"
                          f"http: {{addr: {self.registry}}}\nauth: {{htpasswd: {{realm: r, path: {self.work}/htpasswd}}}}\n")
        self.servers.append(Server(["docker-registry", "serve", str(config)], self.registry_port, self.work / "registry.log"))

        # The server is started from the manifest that generate-k8s makes: its arguments, its file of tokens.
        manifest = subprocess.check_output([self.memobuild, "generate-k8s", "--image", "x", "--server"], text=True)
        objects = list(yaml.safe_load_all(manifest))
        secrets = {o["metadata"]["name"]: o["stringData"] for o in objects if o["kind"] == "Secret"}
        container = next(o for o in objects if o["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][0]
        (self.work / "tokens").write_text(secrets["memobuild-server"]["tokens"])
        self.token = secrets["memobuild-cache"]["token"]
        put = {"0.0.0.0:8080": f"127.0.0.1:{self.server_port}", "/data/cache": str(self.work / "server"),
               "/etc/memobuild/tokens": str(self.work / "tokens")}
        command = [self.memobuild] + [put.get(word, word) for word in container["args"]]
        if sum(word in put.values() for word in command) != 3:
            fail(f"the server's arguments are not those that this test knows: {container['args']}")
        self.servers.append(Server(command, self.server_port, self.work / "server.log"))
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
            self.ask(self.server_port, container[probe]["httpGet"]["path"])
        self.ask(self.server_port, "/metrics", f"Bearer {self.token}")

        # A base image in the registry, and a project that builds on it.
        docker = self.work / "docker"
        docker.mkdir()
        (docker / "config.json").write_text(json.dumps({"auths": {self.registry: {"auth": self.auth()}}}))
        context = self.work / "base-context"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM busybox\n")
        subprocess.run([self.memobuild, "build", "--progress", "quiet", "--build-context",
                        f"busybox=oci-layout://{self.base}", "--tag", f"{self.registry}/busybox", "--push", str(context)],
                       check=True, env={**os.environ, "DOCKER_CONFIG": str(docker),
                                        "MEMOBUILD_CACHE_DIR": str(self.work / "base-cache")})
        self.source.mkdir()
        (self.source / "words").write_text("hello\n")
        (self.source / "Dockerfile").write_text(
            f"FROM {self.registry}/busybox\nCOPY words /words\nRUN sed s/hello/bye/ /words >/said\nCMD cat /said\n")

    def auth(self):
        return base64.b64encode(f"{self.USER}:{self.PASSWORD}".encode()).decode()

    def ask(self, port, path, auth=None, missing=False):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": auth} if auth else {})
        request.add_header("Accept", "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json")
        try:
            return urllib.request.urlopen(request, timeout=30).read().decode()
        except urllib.error.HTTPError as error:
            if missing and error.code == 404:
                return None
            fail(f"{path}: {error}")

    def tags(self, name):
        answer = self.ask(self.registry_port, f"/v2/{name}/tags/list", f"Basic {self.auth()}", missing=True)
        return sorted(json.loads(answer)["tags"] or []) if answer else []

    def machine(self, name):
        """A fresh machine: nothing is left of other jobs."""
        home = self.work / name
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        shutil.copytree(self.source, home / "source")
        return home, {"HOME": str(home), "PATH": os.environ["PATH"], "MEMOBUILD_CACHE_DIR": str(home / "cache")}

    def shell(self, commands, env, cwd, shell=("bash", "-e", "-c")):
        done = subprocess.run([*shell, commands], env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            fail(f"commands failed ({done.returncode}):\n{commands}\n-----\n{done.stdout}")
        return done.stdout

    def generate(self, platform, *options):
        document = subprocess.check_output([self.memobuild, "generate-ci", platform, "--output", "-", *options], text=True)
        return yaml.safe_load(document)

    # ------------------------------------------------------------ GitHub
    def github(self, job, contexts):
        """The steps of a job as GitHub's runner runs them: `bash -e`, expressions put in, GITHUB_PATH read after each."""
        home, env = self.machine("github")
        temp = home / "temp"
        temp.mkdir()
        env |= {"RUNNER_TEMP": str(temp), "GITHUB_PATH": str(temp / "path"), "GITHUB_SHA": contexts["sha"],
                "GITHUB_REPOSITORY": "Team/App"}
        values = {"runner.temp": str(temp), **contexts}

        def value(text):
            return re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda m: values[m[1]], text)
        out = ""
        for step in job["steps"]:
            if "uses" in step:
                if not step["uses"].startswith("actions/checkout@"):
                    fail(f"an unknown action: {step['uses']}")
                continue
            if "${{" in step["run"]:
                fail(f"an expression in a script: {step['run']}")
            more = {name: value(str(text)) for name, text in step.get("env", {}).items()}
            path = temp / "path"
            added = ":".join(path.read_text().split()) + ":" if path.exists() else ""
            out += self.shell(step["run"], {**env, **more, "PATH": added + env["PATH"]}, home / "source")
        return out

    def check_github(self):
        name = "team/github"
        flow = self.generate("github", "--tag", f"{self.registry}/{name}")
        if flow["jobs"]["check"]["permissions"] != {"contents": "read"}:
            fail("a pull request's job may do more than read")
        contexts = {"sha": "c0ffee", "vars.MEMOBUILD_BINARY": f"file://{self.memobuild}",
                    "vars.MEMOBUILD_BINARY_SHA256": self.sha256, "secrets.REGISTRY_USER": self.USER,
                    "secrets.REGISTRY_PASSWORD": self.PASSWORD}
        first = self.github(flow["jobs"]["publish"], contexts)
        self.ran(first, True)
        if self.tags(name) != ["c0ffee", "cache", "latest"]:
            fail(f"tags after a push: {self.tags(name)}")
        # A pull request on another machine: nothing runs, and nothing is written.
        second = self.github(flow["jobs"]["check"], {**contexts, "sha": "beef"})
        self.ran(second, False)
        if self.tags(name) != ["c0ffee", "cache", "latest"]:
            fail(f"tags after a pull request: {self.tags(name)}")
        print("ok -- github, cache in the registry")

    # ------------------------------------------------------------ GitLab
    def gitlab(self, pipeline, name, variables):
        """A job as GitLab's runner runs it: before_script and script in one shell."""
        home, env = self.machine("gitlab")
        project = home / "source"
        variables = {**pipeline[".memobuild"]["variables"], **variables}
        env |= {name: str(text).replace("$CI_PROJECT_DIR", str(project)) for name, text in variables.items()}
        env |= {"CI_PROJECT_DIR": str(project)}
        commands = "\n".join(pipeline[".memobuild"]["before_script"] + pipeline[name]["script"])
        return self.shell(commands, env, project)

    def check_gitlab(self, cache):
        name = f"team/gitlab-{cache}"
        pipeline = self.generate("gitlab", "--cache", cache)
        variables = {"MEMOBUILD_BINARY": f"file://{self.memobuild}", "MEMOBUILD_BINARY_SHA256": self.sha256,
                     "CI_REGISTRY": self.registry, "CI_REGISTRY_IMAGE": f"{self.registry}/{name}",
                     "CI_REGISTRY_USER": self.USER, "CI_REGISTRY_PASSWORD": self.PASSWORD, "CI_COMMIT_SHA": "c0ffee"}
        if cache == "server":
            variables |= {"MEMOBUILD_REMOTE_URL": f"http://127.0.0.1:{self.server_port}",
                          "MEMOBUILD_READ_TOKEN": self.token, "MEMOBUILD_WRITE_TOKEN": self.token}
        first = self.gitlab(pipeline, "publish", variables)
        self.ran(first, True)
        expected = ["c0ffee", "cache", "latest"] if cache == "registry" else ["c0ffee", "latest"]
        if self.tags(name) != expected:
            fail(f"tags after a push: {self.tags(name)}")
        if cache == "server":
            if "MEMOBUILD_REMOTE_URL" not in subprocess.check_output([self.memobuild, "--help"], text=True):
                print("skipped: gitlab, hits from the server: this memobuild does not use servers")
                return
            # What the registry needs a login for is here too: a server has no base images.
            variables |= {"DOCKER_CONFIG": str(self.work / "docker")}
        second = self.gitlab(pipeline, "check", {**variables, "CI_COMMIT_SHA": "beef"})
        self.ran(second, False)
        if self.tags(name) != expected:
            fail(f"tags after a merge request: {self.tags(name)}")
        print(f"ok -- gitlab, cache: {cache}")

    def ran(self, log, expected):
        """Whether the RUN step was executed, by the plain progress: `#N [2/3] RUN ...`, `#N DONE` or `#N CACHED`."""
        step = re.search(r"^#(\d+) \[.*\] RUN sed", log, re.M)
        if not step:
            fail(f"no such step:\n{log}")
        executed = re.search(rf"^#{step[1]} DONE", log, re.M) is not None
        reused = re.search(rf"^#{step[1]} CACHED", log, re.M) is not None
        if (executed, reused) != (expected, not expected):
            fail(f"the step should {'run' if expected else 'be reused'}:\n{log}")


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    commands = ap.add_subparsers(dest="command", required=True)
    commands.add_parser("kubernetes").add_argument("files", nargs="+")
    kept = commands.add_parser("same")
    kept.add_argument("memobuild")
    kept.add_argument("directory")
    pod = commands.add_parser("pods")
    for name in ["--memobuild", "--bundle", "--runtime"]:
        pod.add_argument(name, required=True)
    run = commands.add_parser("run")
    for name in ["--memobuild", "--base", "--work"]:
        run.add_argument(name, required=True)
    args = ap.parse_args()
    if args.command == "kubernetes":
        return kubernetes(args.files)
    if args.command == "same":
        return same(args.memobuild, args.directory)
    if args.command == "pods":
        return pods(args)
    run = Run(args)
    try:
        run.start()
        run.check_github()
        run.check_gitlab("registry")
        run.check_gitlab("server")
    finally:
        for server in run.servers:
            server.stop()


if __name__ == "__main__":
    main()
