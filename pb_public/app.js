// A small client of a Groundwork server, made with the stock PocketBase SDK:
// sign up, an inbox in realtime, messages while the page is closed, a version
// check. Take it as a start.

import { pushButton } from "./push.js";

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

// What an app asks at every start, and when someone comes back to it.
async function showVersion() {
  const line = $("version"), update = $("update");
  try {
    const answer = await fetch(`/api/version-check?platform=web&version=${encodeURIComponent(appVersion)}`);
    if (!answer.ok) throw new Error(String(answer.status));
    const v = await answer.json();
    const newest = v.latest || v.minimum;
    line.dataset.state = v.hard_update ? "hard" : v.soft_update ? "soft" : "current";
    line.textContent = v.hard_update ? `Version ${appVersion} is too old to go on.`
      : v.soft_update ? `Version ${appVersion} works; ${newest ? `version ${newest}` : "a newer one"} is better.`
      : `Version ${appVersion} is up to date.`;
    update.hidden = !v.hard_update && !v.soft_update;
    update.classList.toggle("hard", v.hard_update);
    const heading = document.createElement("strong");
    heading.textContent = v.hard_update ? "An update is required." : "An update is available.";
    update.replaceChildren(heading, v.message ? ` ${v.message}` : "");
    if (isWebAddress(v.store_url)) update.append(" ", anchor(v.store_url, newest ? `Get version ${newest}` : "Get it"));
  } catch {
    line.textContent = "The version could not be checked: the server did not answer.";
  }
}
document.addEventListener("visibilitychange", () => document.hidden || showVersion());

function isWebAddress(text) {
  return /^https?:\/\//.test(text);
}

function anchor(href, text) {
  const a = document.createElement("a");
  a.href = href;
  a.textContent = text;
  return a;
}

function start(pb) {
  pb.autoCancellation(false);
  let messages = new Map();
  const push = pushButton(pb, notice);

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
    const spoken = document.createElement("span");
    spoken.className = "hidden";
    spoken.textContent = " unread";
    $("unread").replaceChildren(String(unread), spoken);
    $("unread").hidden = unread === 0;
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
    if (isWebAddress(m.link)) {
      const link = anchor(m.link, "Open");
      link.className = "link";
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

  const keep = (m) => {
    if (messages.get(m.id)?.updated > m.updated) return; // events of one record can come out of order
    messages.set(m.id, m);
    render();
  };

  const load = async () => {
    const page = await pb.collection("notification_inbox").getList(1, 50, { sort: "-created" });
    page.items.forEach(keep);
    render();
  };

  const failed = (e) => {
    if (e.status === 401 || e.status === 403) pb.authStore.clear();
    notice(sentence(e));
    render();
  };

  const open = async () => {
    render();
    if (!pb.authStore.isValid) return;
    push.show();
    try {
      // Subscribe first, then list: nothing falls in between. After a lost
      // connection the list tells what came meanwhile.
      await pb.collection("notification_inbox").subscribe("*", ({ action, record }) => {
        if (action === "delete") { messages.delete(record.id); render(); } else keep(record);
      });
      await load();
      await pb.realtime.subscribe("PB_CONNECT", () => pb.authStore.isValid && load().catch(failed));
    } catch (e) {
      failed(e);
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
    showErrors({});
  };
  const showErrors = (errors) => {
    for (const name of ["name", "email", "password"]) {
      $(`${name}-error`).textContent = errors[name] ?? "";
      sign.elements[name].setAttribute("aria-invalid", name in errors);
    }
    $("sign-error").textContent = errors.form ?? "";
    const first = ["name", "email", "password"].find((name) => name in errors);
    if (first) sign.elements[first].focus();
  };
  sign.elements.mode.forEach((radio) => radio.addEventListener("change", showMode));
  showMode();

  // Said here, so that nobody waits for the server to hear it.
  const missing = (email, password) => ({
    ...(sign.elements.email.validity.valid && email ? {} : { email: "Enter your e-mail address, such as ana@example.com." }),
    ...(!password ? { password: "Enter a password." }
      : mode() === "up" && password.length < 8 ? { password: "Choose a longer password: at least 8 characters." } : {}),
  });

  sign.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { name, email, password } = Object.fromEntries(new FormData(sign));
    const errors = missing(email, password);
    showErrors(errors);
    if (Object.keys(errors).length) return;
    const button = sign.querySelector("button[type=submit]");
    button.disabled = true;
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
      showErrors(atFields(e));
    } finally {
      button.disabled = false;
    }
  });

  $("out").addEventListener("click", async () => {
    $("out").disabled = true;
    await push.forget(); // while it is known who is signed in
    $("out").disabled = false;
    pb.authStore.clear();
    messages = new Map();
    notice("");
    render();
    await pb.realtime.unsubscribe().catch(() => {}); // gone with the page, if the server is
  });

  open();
}

// What went wrong with the form, at the field where there is one.
function atFields(error) {
  const fields = { ...error?.response?.data };
  delete fields.passwordConfirm; // the form asks once
  const errors = {};
  for (const [name, e] of Object.entries(fields)) {
    if (name === "email" && e.code === "validation_not_unique") errors.email = "There is an account with this e-mail already: sign in instead.";
    else if (["name", "email", "password"].includes(name)) errors[name] = e.message;
  }
  return Object.keys(errors).length ? errors : { form: sentence(error) };
}

// What went wrong, in words.
function sentence(error) {
  if (!error?.status) return "The server did not answer. Is it still running?";
  const fields = Object.entries(error.response?.data ?? {});
  if (fields.length) return fields.map(([field, e]) => `${field}: ${e.message}`).join(" ");
  if (error.status === 400 && /authenticate/.test(error.message)) return "This e-mail and password do not belong together.";
  return error.message;
}
