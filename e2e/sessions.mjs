// Two clients of one person with the stock SDK, in Node and in a real browser: one
// signs the other out. And SDKs that hold a token which counts no longer.
//
//   node sessions.mjs BASE SUPERUSER_EMAIL PASSWORD
import { createRequire } from "node:module";
import { setTimeout as after } from "node:timers/promises";
import assert from "node:assert/strict";
import { launch, password } from "./dashboard.mjs";

const require = createRequire(new URL("../web/package.json", import.meta.url));
const { default: PocketBase } = await import(require.resolve("pocketbase"));
const { EventSource } = await import(require.resolve("eventsource"));

const [base, rootEmail, rootPassword] = process.argv.slice(2);

// How long nothing more is asked after a sign-out: the SDK's own retries are 2 s
// apart at most.
const quiet = 7_000;

// What all clients of this process ask of the server.
const asked = [];
const fetchOnce = globalThis.fetch;
globalThis.fetch = (url, options) => {
  asked.push(`${options?.method ?? "GET"} ${new URL(url).pathname} ${(options?.headers?.Authorization ?? "").slice(-8)}`);
  return fetchOnce(url, options);
};
globalThis.EventSource = class extends EventSource {
  constructor(url) {
    asked.push("EventSource");
    super(url);
  }
};

const step = async (name, fn) => {
  const start = Date.now();
  await fn();
  console.log(`ok    ${name} (${Date.now() - start} ms)`);
};
const refused = async (status, promise) => {
  const error = await promise.then(() => assert.fail("it was not refused"), (e) => e);
  assert.equal(error.status, status, error.stack);
  return error.response;
};
const until = async (what, condition) => {
  for (const end = Date.now() + 120_000; Date.now() < end;) {
    if (await condition()) return;
    await after(50);
  }
  assert.fail(`it never came: ${what}`);
};
const payload = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
const users = (pb) => pb.collection("users");
const sessions = (pb) => pb.collection("sessions");

const root = new PocketBase(base);
await root.collection("_superusers").authWithPassword(rootEmail, rootPassword);
const papers = await root.collections.create({ type: "base", name: "papers", viewRule: "@request.auth.id != ''", listRule: "",
  fields: [{ name: "paper", type: "file", maxSelect: 1, maxSize: 1000, protected: true }] });
const form = new FormData();
form.set("paper", new Blob(["secret"]), "paper.txt");
const paper = await root.collection("papers").create(form);

const phone = new PocketBase(base), laptop = new PocketBase(base);
await users(phone).create({ email: "ana@example.com", name: "Ana", password, passwordConfirm: password });
const signIn = (pb) => users(pb).authWithPassword("ana@example.com", password);
await signIn(phone);
await signIn(laptop);
const ana = phone.authStore.record.id;
const inbox = { phone: [], laptop: [] };
let device, fileUrl;

await step("two sign-ins are two sessions, and refresh keeps them", async () => {
  const rows = await sessions(laptop).getFullList();
  assert.equal(rows.length, 2);
  assert.deepEqual(rows.map((r) => [r.kind, r.name, r.recordRef, r.ip]), Array(2).fill(["sign_in", "Node.js", ana, "127.0.0.1"]));
  const before = payload(phone.authStore.token).sid;
  await users(phone).authRefresh();
  assert.equal(payload(phone.authStore.token).sid, before);
  assert.ok(phone.authStore.isValid);
  // Other SDKs read exp as a whole number.
  assert.match(Buffer.from(phone.authStore.token.split(".")[1], "base64url").toString(), /"exp":\d{10}[,}]/);
  assert.equal((await sessions(laptop).getFullList()).length, 2);
});

await step("both get their inbox, register a device and a file token", async () => {
  await phone.collection("notification_inbox").subscribe("*", (e) => inbox.phone.push(e.record.title));
  await laptop.collection("notification_inbox").subscribe("*", (e) => inbox.laptop.push(e.record.title));
  device = await phone.collection("devices").create({ platform: "android", token: "phone-token" });
  await laptop.collection("devices").create({ platform: "android", token: "laptop-token" });
  assert.equal(device.session, payload(phone.authStore.token).sid);
  fileUrl = phone.files.getURL(paper, paper.paper, { token: await phone.files.getToken() });
  assert.equal((await fetch(fileUrl)).status, 200);
  await root.collection("notification_inbox").create({ user: ana, title: "one" });
  await until("the first message", () => inbox.phone.length === 1 && inbox.laptop.length === 1);
});

await step("the laptop signs the phone out", async () => {
  await sessions(laptop).delete(payload(phone.authStore.token).sid);

  const answer = await refused(401, sessions(phone).getFullList());
  assert.equal(answer.data.token.code, "session_ended");
  await refused(401, phone.collection("devices").getFullList());
  await refused(401, phone.createBatch().send());
  await refused(401, phone.send("/api/logout", { method: "POST" }));
  await refused(401, users(phone).authRefresh());
  assert.equal((await fetch(fileUrl)).status, 404);
  const devices = await laptop.collection("devices").getFullList();
  assert.deepEqual(devices.map((d) => [d.token, d.status]).sort(), [["laptop-token", "active"], ["phone-token", "signed_out"]]);
  assert.match(devices.find((d) => d.id === device.id).statusReason, /^Signed out/);
});

await step("the phone's realtime client is quiet and gets nothing more; the laptop goes on", async () => {
  const before = asked.length;
  await root.collection("notification_inbox").create({ user: ana, title: "two" });
  await until("the second message", () => inbox.laptop.length === 2);
  await after(quiet);
  assert.deepEqual(inbox.phone, ["one"]);
  assert.ok(phone.realtime.isConnected);
  assert.equal(asked.length, before + 1, `nothing but the message was asked: ${asked.slice(before)}`);
  assert.equal((await sessions(laptop).getFullList()).length, 1);
});

await step("when its connection breaks it connects again once, as a guest", async () => {
  const before = asked.length;
  phone.realtime.eventSource.dispatchEvent(new Event("error")); // as a browser tells it
  phone.realtime.eventSource?.onerror?.(new Event("error"));
  await until("a new connection", () => phone.realtime.isConnected);
  await after(quiet);
  const since = asked.slice(before);
  assert.ok(since.length <= 4, `${since.length} requests: ${since}`);
  await root.collection("notification_inbox").create({ user: ana, title: "three" });
  await until("the third message", () => inbox.laptop.length === 3);
  assert.deepEqual(inbox.phone, ["one"]);
});

await step("who signs in again is back, on the same connection", async () => {
  await signIn(phone);
  await phone.collection("notification_inbox").unsubscribe();
  await phone.collection("notification_inbox").subscribe("*", (e) => inbox.phone.push(e.record.title));
  await root.collection("notification_inbox").create({ user: ana, title: "four" });
  await until("the fourth message", () => inbox.phone.length === 2);
  const again = await phone.collection("devices").create({ platform: "android", token: "phone-token" });
  assert.deepEqual([again.id, again.status], [device.id, "active"]);
});

await step("logging out", async () => {
  await phone.send("/api/logout", { method: "POST" });
  await refused(401, sessions(phone).getFullList());
  assert.equal((await sessions(laptop).getFullList()).length, 1);
});

for (const [why, spoil] of Object.entries({
  expired: (token) => {
    const [head, body, signature] = token.split(".");
    const old = { ...payload(`.${body}.`), exp: 1_600_000_000 };
    return `${head}.${Buffer.from(JSON.stringify(old)).toString("base64url")}.${signature}`;
  },
  ended: (token) => token, // the phone's
})) {
  await step(`a client whose token has ${why} can do what needs none`, async () => {
    const pb = new PocketBase(base);
    pb.autoCancellation(false);
    const bad = spoil(phone.authStore.token);
    const hold = () => pb.authStore.save(bad, { id: ana, collectionId: "_pb_users_auth_", collectionName: "users" });
    hold();
    await refused(401, sessions(pb).getFullList());
    await refused(401, pb.collection("papers").getFullList());

    await users(pb).listAuthMethods();
    await users(pb).create({ email: `${why}@example.com`, password, passwordConfirm: password });
    await users(pb).requestPasswordReset("ana@example.com");
    await refused(400, users(pb).confirmPasswordReset("x", password, password));
    await users(pb).requestVerification("ana@example.com");
    await refused(400, users(pb).confirmVerification("x"));
    await refused(400, users(pb).confirmEmailChange("x", password));
    await pb.health.check();
    await refused(400, pb.send("/api/version-check", { query: { platform: "none", version: "1.0" } }));
    const unsubscribe = await pb.realtime.subscribe("papers/*", () => {});
    assert.ok(pb.realtime.isConnected);
    await unsubscribe();
    hold();
    await signIn(pb);
    assert.ok((await sessions(pb).getFullList()).length >= 2);
  });
}

await step("a password change ends every session of the account and of nobody else", async () => {
  const other = new PocketBase(base);
  await users(other).authWithPassword("expired@example.com", password);
  await users(laptop).update(ana, { oldPassword: password, password: "another-password", passwordConfirm: "another-password" });
  await refused(401, sessions(laptop).getFullList());
  assert.equal((await sessions(other).getFullList()).length, 1);
  await users(laptop).authWithPassword("ana@example.com", "another-password");
  assert.equal((await sessions(laptop).getFullList()).length, 1);
});

// In a real browser.
const context = await launch();
const browserAsks = [];
context.on("request", (r) => { if (r.url().includes("/api/")) browserAsks.push(`${r.method()} ${new URL(r.url()).pathname}`); });
try {
  const page = await context.newPage();
  await step("a browser that is signed out elsewhere keeps its connection and does not storm", async () => {
    await page.goto(base);
    const sid = await page.evaluate(async ([email, secret]) => {
      const { default: PocketBase } = await import("/vendor/pocketbase.es.mjs");
      window.pb = new PocketBase(location.origin);
      window.got = [];
      await pb.collection("users").authWithPassword(email, secret);
      await pb.collection("notification_inbox").subscribe("*", (e) => got.push(e.record.title));
      return JSON.parse(atob(pb.authStore.token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"))).sid;
    }, ["ana@example.com", "another-password"]);
    await root.collection("notification_inbox").create({ user: ana, title: "five" });
    await until("the fifth message", () => page.evaluate(() => got.length === 1));
    assert.match((await sessions(laptop).getOne(sid)).name, /^Chrome on /);

    await sessions(laptop).delete(sid);
    const before = browserAsks.length;
    await root.collection("notification_inbox").create({ user: ana, title: "six" });
    await until("the sixth message", () => inbox.laptop.length >= 4);
    await after(quiet);
    assert.deepEqual(browserAsks.slice(before), []);
    assert.deepEqual(await page.evaluate(() => [got.length, pb.realtime.isConnected]), [1, true]);
    const status = await page.evaluate(() => pb.collection("sessions").getFullList().then(() => 200, (e) => e.status));
    assert.equal(status, 401, "the browser lets the page read it");
  });

  const dashboardSignIn = async (p) => {
    await p.locator("input[type=password]").waitFor();
    await p.locator("input[type=email], input[type=text]").first().fill(rootEmail);
    await p.locator("input[type=password]").fill(rootPassword);
    await p.getByRole("button", { name: /login/i }).first().click();
    await p.locator('button.nav-item[title="users"]').waitFor();
  };
  const key = "__pb_superusers__/_";
  const stored = (p) => p.evaluate((key) => JSON.parse(localStorage.getItem(key)).token, key);
  const admin = await context.newPage();
  await step("the dashboard signs in", async () => {
    await admin.goto(`${base}/_/`);
    await dashboardSignIn(admin);
  });
  await step("the dashboard whose session was ended elsewhere asks for the password and signs in", async () => {
    const token = await stored(admin);
    await sessions(root).delete(payload(token).sid);
    await admin.reload();
    await dashboardSignIn(admin);
  });
  await step("so does the dashboard with an expired token", async () => {
    const token = await stored(admin);
    const [head, body, signature] = token.split(".");
    const old = Buffer.from(JSON.stringify({ ...payload(token), exp: 1_600_000_000 })).toString("base64url");
    await admin.evaluate(([key, token]) => localStorage.setItem(key, JSON.stringify({ ...JSON.parse(localStorage.getItem(key)), token })), [key, `${head}.${old}.${signature}`]);
    await admin.reload();
    await dashboardSignIn(admin);
  });
} finally {
  await context.close();
}
process.exit(0); // the realtime connections would last
