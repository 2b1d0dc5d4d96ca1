// What the server is asked, and what it tells by itself.

const KEY = "memobuild.token";
const PROTOCOL = "memobuild.v1";
const POLL = 5000;

let token = sessionStorage.getItem(KEY);
let asking = null;
/** The server's clock less this one's, in milliseconds. */
let offset = 0;

/** Now, by the server's clock: all times that it tells are its own. */
export const now = () => Date.now() + offset;

/** Asks for a token; all that wait for one wait for the same. */
function askForToken(wrong) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("login");
    const form = document.getElementById("login-form");
    const input = document.getElementById("token");
    const error = document.getElementById("login-error");
    error.hidden = !wrong;
    error.textContent = wrong ? "The server does not know this token." : "";
    const keep = (event) => event.preventDefault();
    const submit = (event) => {
      event.preventDefault();
      const given = input.value.trim();
      if (!/^[\x21-\x7e]+$/.test(given)) {
        error.hidden = false;
        error.textContent = "A token has letters and digits only.";
        return;
      }
      token = given;
      sessionStorage.setItem(KEY, token);
      input.value = "";
      form.removeEventListener("submit", submit);
      dialog.removeEventListener("cancel", keep);
      dialog.close();
      asking = null;
      resolve();
    };
    form.addEventListener("submit", submit);
    // Without a token there is nothing to go back to.
    dialog.addEventListener("cancel", keep);
    dialog.showModal();
    input.focus();
  });
  return asking;
}

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The answer to a GET, as JSON. Throws an ApiError, or a TypeError if there is no answer. */
export async function get(path) {
  for (;;) {
    const sent = token;
    const headers = sent ? { Authorization: `Bearer ${sent}` } : {};
    const response = await fetch(path, { headers, cache: "no-store" });
    if (response.status === 401) {
      // Another request may have got one meanwhile.
      if (token === sent) {
        token = null;
        sessionStorage.removeItem(KEY);
        await askForToken(sent !== null);
      }
      continue;
    }
    const body = await response.json().catch(() => ({}));
    if (!response.ok) throw new ApiError(response.status, body.message ?? `the server answered ${response.status}`);
    if (typeof body.now === "number") offset = body.now - Date.now();
    return body;
  }
}

/** Listens to the server; where that can't be done, says every few seconds that it is time to ask. */
export class Live {
  /** `message`: what the server tells. `refresh`: something may have been missed. `state`: live, polling or offline. */
  constructor({ message, refresh, state }) {
    Object.assign(this, { message, refresh, state });
    this.socket = null;
    this.watched = null;
    this.wait = 1000;
    this.failed = false;
    setInterval(() => this.poll(), POLL);
  }

  /** Begins; to be called once a request went through, when it is known whether a token is needed. */
  connect() {
    if (this.socket) return;
    const protocols = [PROTOCOL];
    if (token) protocols.push(`bearer.${token}`);
    let socket;
    try {
      socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`, protocols);
    } catch {
      // A token that is none by the rules of WebSockets.
      this.state("polling");
      return;
    }
    this.socket = socket;
    socket.addEventListener("open", () => {
      this.wait = 1000;
      this.state("live");
      this.watch(this.watched);
      this.refresh();
    });
    socket.addEventListener("message", (event) => {
      let told;
      try {
        told = JSON.parse(event.data);
      } catch {
        return;
      }
      this.message(told);
    });
    socket.addEventListener("close", () => {
      this.socket = null;
      this.state(this.failed ? "offline" : "polling");
      setTimeout(() => this.connect(), this.wait);
      this.wait = Math.min(this.wait * 2, 30_000);
    });
  }

  get open() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  /** Asks for the steps and outputs of this build; null for none. */
  watch(id) {
    this.watched = id;
    if (this.open) this.socket.send(JSON.stringify({ watch: id }));
  }

  async poll() {
    if (this.open || document.hidden || asking) return;
    this.failed = !(await this.refresh());
    if (!this.open) this.state(this.failed ? "offline" : "polling");
  }
}
