// A small client of a Groundwork server, made with the stock PocketBase SDK:
// sign up, an inbox in realtime, a version check. Take it as a start.

const $ = (id) => document.getElementById(id);
const appVersion = document.querySelector('meta[name="app-version"]').content;

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

let PocketBase;
try {
  ({ default: PocketBase } = await import("./vendor/pocketbase.es.mjs"));
} catch {
  notice("The JavaScript SDK is not part of this build. Install npm and run “make build” once; the API and the dashboard work without it.");
}

await showVersion();
if (PocketBase) start(new PocketBase(location.origin));

// The version line: what an app asks at every start.
async function showVersion() {
  const line = $("version");
  try {
    const answer = await fetch(`/api/version-check?platform=web&version=${encodeURIComponent(appVersion)}`);
    if (!answer.ok) throw new Error(String(answer.status));
    const v = await answer.json();
    line.textContent = v.hard_update ? `Version ${appVersion} is too old: an update to ${v.latest || v.minimum} is required. ${v.message}`
      : v.soft_update ? `Version ${appVersion}. Version ${v.latest} is available. ${v.message}`
      : `Version ${appVersion} is up to date.`;
    line.dataset.state = v.hard_update ? "hard" : v.soft_update ? "soft" : "current";
  } catch {
    line.textContent = "The version could not be checked: the server did not answer.";
  }
}

function start(pb) {
  pb.autoCancellation(false);
  let messages = new Map();
  let unsubscribe = () => {};

  const render = () => {
    const member = pb.authStore.isValid;
    $("guest").hidden = member;
    $("member").hidden = !member;
    if (!member) return;
    $("who").textContent = pb.authStore.record.email || "";
    const sorted = [...messages.values()].sort((a, b) => b.created.localeCompare(a.created));
    $("inbox").replaceChildren(...sorted.map(item));
    $("empty").hidden = sorted.length > 0;
    const unread = sorted.filter((m) => !m.readAt).length;
    $("unread").textContent = unread;
    $("unread").hidden = unread === 0;
    $("unread").setAttribute("aria-label", `${unread} unread`);
    document.title = unread ? `(${unread}) Groundwork` : "Groundwork";
  };

  const item = (m) => {
    const li = document.createElement("li");
    li.className = m.readAt ? "" : "unread";
    const title = document.createElement("h3");
    title.textContent = m.title || m.body;
    li.append(title);
    if (m.title && m.body) {
      const body = document.createElement("p");
      body.className = "text";
      body.textContent = m.body;
      li.append(body);
    }
    if (/^https?:\/\//.test(m.link)) {
      const link = document.createElement("a");
      link.className = "link";
      link.href = m.link;
      link.textContent = "Open";
      li.append(link);
    }
    const time = document.createElement("time");
    time.dateTime = m.created;
    time.textContent = new Date(m.created).toLocaleString();
    li.append(time);
    if (!m.readAt) {
      const read = document.createElement("button");
      read.type = "button";
      read.className = "quiet";
      read.textContent = "Mark read";
      read.setAttribute("aria-label", `Mark read: ${title.textContent}`);
      read.onclick = async () => {
        read.disabled = true;
        try {
          keep(await pb.collection("notification_inbox").update(m.id, { readAt: new Date().toISOString() }));
        } catch (e) {
          notice(sentence(e));
          read.disabled = false;
        }
      };
      li.append(read);
    }
    return li;
  };

  const keep = (m) => { messages.set(m.id, m); render(); };

  // Subscribe first, then list: nothing falls in between.
  const open = async () => {
    render();
    if (!pb.authStore.isValid) return;
    try {
      unsubscribe = await pb.collection("notification_inbox").subscribe("*", ({ action, record }) => {
        if (action === "delete") { messages.delete(record.id); render(); } else keep(record);
      });
      const page = await pb.collection("notification_inbox").getList(1, 50, { sort: "-created" });
      page.items.forEach((m) => messages.set(m.id, m));
      render();
    } catch (e) {
      if (e.status === 401 || e.status === 403) pb.authStore.clear();
      notice(sentence(e));
      render();
    }
  };

  const sign = $("sign");
  const mode = () => sign.elements.mode.value;
  const showMode = () => {
    const up = mode() === "up";
    $("name-row").hidden = !up;
    $("password-hint").hidden = !up;
    sign.elements.password.autocomplete = up ? "new-password" : "current-password";
    sign.querySelector("button[type=submit]").textContent = up ? "Sign up" : "Sign in";
    $("sign-error").textContent = "";
  };
  sign.addEventListener("change", showMode);
  showMode();

  sign.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { name, email, password } = Object.fromEntries(new FormData(sign));
    const button = sign.querySelector("button[type=submit]");
    button.disabled = true;
    $("sign-error").textContent = "";
    try {
      if (mode() === "up") {
        await pb.collection("users").create({ name, email, password, passwordConfirm: password });
      }
      await pb.collection("users").authWithPassword(email, password);
      sign.reset();
      showMode();
      notice("");
      await open();
    } catch (e) {
      $("sign-error").textContent = sentence(e);
    } finally {
      button.disabled = false;
    }
  });

  $("out").addEventListener("click", async () => {
    pb.authStore.clear();
    await unsubscribe();
    messages = new Map();
    render();
  });

  open();
}

// What went wrong, in words: the field's own sentence where there is one.
function sentence(error) {
  if (!error?.status) return "The server did not answer. Is it still running?";
  const fields = Object.entries(error.response?.data ?? {});
  if (fields.length) return fields.map(([field, e]) => `${field}: ${e.message}`).join(" ");
  if (error.status === 400 && /authenticate/.test(error.message)) return "This e-mail and password do not belong together.";
  return error.message;
}
