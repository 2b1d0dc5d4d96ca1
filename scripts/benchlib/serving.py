"""The two servers of scripts/bench-server, and what asks them: wrk and crates/memobuild-server/examples/rate.rs
for rates, a socket and dd for one large file, examples/clients.rs for many clients at once."""
import http.client, json, os, re, shutil, socket, subprocess, sys, time
from pathlib import Path

MB = 1 << 20

# Each request asks for another of the files; they are put together once, so that wrk's share is the same for both servers.
WRK = """
local requests, at = {{}}, 0
init = function()
  for path in io.lines("{paths}") do requests[#requests + 1] = wrk.format("{method}", path) end
  at = math.random(#requests)
end
request = function()
  at = at % #requests + 1
  return requests[at]
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(99),
    e.connect + e.read + e.write + e.timeout + e.status))
end
"""

NGINX = """
worker_processes {workers};
worker_rlimit_nofile 65536;
daemon off;
pid {work}/nginx.pid;
error_log {work}/nginx.log error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  keepalive_timeout 65;
  keepalive_requests 100000000;
  default_type application/octet-stream;
  client_body_temp_path {work}/nginx-body;
  proxy_temp_path {work}/nginx-proxy;
  fastcgi_temp_path {work}/nginx-fastcgi;
  uwsgi_temp_path {work}/nginx-uwsgi;
  scgi_temp_path {work}/nginx-scgi;
  server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }}
}}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Served:
    """A process that listens on loopback; ended on leaving."""

    def __init__(self, command, port, cpus, log):
        self.port = port
        with open(log, "ab") as out:
            self.process = subprocess.Popen(["taskset", "-c", cpus, *command], stdout=out, stderr=out)
        for _ in range(1500):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.02)
        self.stop()
        sys.exit(f"bench-server: {command[0]} did not start:\n{Path(log).read_text()[-2000:]}")

    def peak(self):
        """The most memory that it has had, in MB (proc_pid_status(5), VmHWM)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data

    def digest(self, body):
        """BLAKE3 of a body, by what the server says of it under a name that it does not have: Python has no BLAKE3."""
        status, answer = self.request("PUT", "/cache/" + "0" * 64, body)
        if status != 400:
            sys.exit(f"bench-server: a body under a wrong name was answered with {status}: {answer!r}")
        return json.loads(answer)["actual"]


def start_server(bench, data):
    """The server, with an empty directory unless it is to go on with what it has."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    if bench.args.server:
        command = [bench.args.server, "server", "--data-dir", str(data), "--listen", address]
    else:
        command = [bench.exe, str(data), address]
    return Served(command, port, bench.cpus, bench.work / "server.log")


def start_nginx(bench, root):
    port, config = free_port(), bench.work / "nginx.conf"
    config.write_text(NGINX.format(work=bench.work, port=port, root=root, workers=bench.cpus.count(",") + 1))
    # Its workers are another user's where root starts it, and must get at the files.
    subprocess.run(["chmod", "-R", "a+rX", str(root)], check=True)
    bench.work.chmod(0o755)
    return Served(["nginx", "-c", str(config), "-e", str(bench.work / "nginx.log")], port, bench.cpus,
                  bench.work / "nginx.log")


class Load:
    """What a load generator saw: wrk for GET, examples/rate.rs for HEAD, whose answers wrk takes for unfinished."""

    def __init__(self, bench, server, method, paths, connections):
        command = ["taskset", "-c", bench.cpus]
        if method == "GET":
            script = bench.work / "get.lua"
            script.write_text(WRK.format(method=method, paths=paths))
            command += ["wrk", "-t2", f"-c{connections}", f"-d{bench.seconds}s", "-s", str(script),
                        f"http://127.0.0.1:{server.port}"]
        else:
            command += [bench.rate, f"127.0.0.1:{server.port}", method, str(paths), str(connections), str(bench.seconds)]
        out = subprocess.run(command, capture_output=True, text=True)
        found = re.search(r"RESULT (.*)|^(\{.*)$", out.stdout, re.M)
        if not found:
            sys.exit(f"bench-server: {command[3]} failed:\n{out.stdout}{out.stderr}")
        if found[1]:
            requests, micros, p99, self.errors = (int(n) for n in found[1].split())
            self.rate, self.p99 = requests / micros * 1e6, p99 / 1e3
        else:
            seen = json.loads(found[2])
            self.rate, self.p99, self.errors = seen["requests"] / seen["seconds"], seen["p99_ms"], seen["errors"]


def send_file(server, path, digest):
    """PUT of a file straight out of the page cache; gives seconds until the answer that it is on disk."""
    size = os.path.getsize(path)
    with socket.create_connection(("127.0.0.1", server.port)) as s, open(path, "rb") as f:
        begin = time.perf_counter()
        s.sendall(f"PUT /cache/{digest} HTTP/1.1\r\nHost: cache\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
                  .encode())
        s.sendfile(f)
        answer = s.makefile("rb").readline()
        seconds = time.perf_counter() - begin
    if b" 201 " not in answer:
        sys.exit(f"bench-server: a large PUT was answered with {answer!r}")
    return seconds


def dd(source, to):
    begin = time.perf_counter()
    subprocess.run(["dd", f"if={source}", f"of={to}", "bs=1M", "conv=fdatasync", "status=none"], check=True)
    seconds = time.perf_counter() - begin
    os.unlink(to)
    return seconds


def clients(bench, server, how_many):
    """What examples/clients.rs says; ends the benchmark if it can't run."""
    out = subprocess.run([bench.clients, f"127.0.0.1:{server.port}", str(how_many), str(bench.seconds * 2)],
                         capture_output=True, text=True)
    if out.returncode == 2 or not out.stdout.startswith("{"):
        sys.exit(f"bench-server: clients failed:\n{out.stderr[-2000:]}")
    if out.stderr:
        print(out.stderr[-2000:], file=sys.stderr)
    return json.loads(out.stdout)


def fill(server, data, www, files, size):
    """Blobs in the server, the same files (links to them) in nginx's directory, and the list of their paths."""
    paths = []
    (www / "cache").mkdir(parents=True)
    for _ in range(files):
        body = os.urandom(size)
        digest = server.digest(body)
        status, answer = server.request("PUT", f"/cache/{digest}", body)
        if status != 201:
            sys.exit(f"bench-server: PUT was answered with {status}: {answer!r}")
        os.link(data / "blobs" / digest[:2] / digest, www / "cache" / digest)
        paths.append(f"/cache/{digest}")
    return paths


def remove(path):
    shutil.rmtree(path, ignore_errors=True)
