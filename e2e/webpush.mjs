// Web Push in a real browser: the button on the page, a message from the dashboard,
// the notification. Mouse and keyboard only.
//
//   node webpush.mjs BASE SETUP_LINK SHOTS DOUBLE
import { join } from "node:path";
import assert from "node:assert/strict";
import { axeFaults, dashboard, launch, password, signUp } from "./dashboard.mjs";

const [base, setupLink, shots, double] = process.argv.slice(2);
const context = await launch();

const step = async (name, fn) => {
  const start = Date.now();
  try {
    await fn();
    console.log(`ok    ${name} (${Date.now() - start} ms)`);
  } catch (e) {
    for (const [i, p] of context.pages().entries()) await p.screenshot({ path: join(shots, `failed-${i}.png`) }).catch(() => {});
    console.error(`FAIL  ${name}\n${e.stack}`);
    await context.close();
    process.exit(1);
  }
};

const page = await context.newPage();
const admin = await context.newPage();
const problems = [];
page.on("pageerror", (e) => problems.push(e.message));
page.on("console", (m) => m.type() === "error" && /Content Security Policy/.test(m.text()) && problems.push(m.text()));

const cdp = await context.newCDPSession(page);
let registration;
cdp.on("ServiceWorker.workerRegistrationUpdated", (e) => { registration = e.registrations.find((r) => !r.isDeleted) ?? registration; });
await cdp.send("ServiceWorker.enable");

const on = page.getByRole("button", { name: "Notify me in this browser" });
const off = page.getByRole("button", { name: "Stop notifying this browser" });
const state = page.locator("#push-state");
const permission = (setting) => cdp.send("Browser.setPermission", { permission: { name: "notifications" }, setting, origin: base });
const devices = async () => (await page.evaluate(async () => {
  const { default: PocketBase } = await import("/vendor/pocketbase.es.mjs");
  return new PocketBase(location.origin).collection("devices").getFullList();
}));
// shown is every notification that the worker has put up so far, as the browser gives
// it back right after: here nobody keeps them for long.
const worker = async () => context.serviceWorkers()[0] ?? context.waitForEvent("serviceworker");
const shown = async () => (await worker()).evaluate(() => self.shown);
const watchWorker = async () => (await worker()).evaluate(() => {
  self.shown = [];
  const put = ServiceWorkerRegistration.prototype.showNotification;
  ServiceWorkerRegistration.prototype.showNotification = async function (title, options) {
    await put.call(this, title, options);
    const all = await this.getNotifications();
    self.shown.push({ all: all.length, ...Object.fromEntries(["title", "body", "tag", "silent", "data"].map((k) => [k, all.find((n) => n.title === title)?.[k]])) });
  };
});

await dashboard.firstSuperuser(admin, setupLink);

await step("somebody who says no is told how to change that, and nothing is registered", async () => {
  await page.bringToFront();
  await page.goto(base);
  await signUp(page, "Ana");
  await on.waitFor();
  assert.deepEqual(await axeFaults(page), []);
  await permission("denied");
  await on.click();
  await state.getByText("Notifications are blocked for this page.").waitFor();
  assert.equal(await on.isVisible(), false);
  assert.equal((await devices()).length, 0);
});

await step("a browser without a push service says so", async () => {
  await permission("granted");
  await page.reload();
  await on.click(); // this one's is out of reach: Chromium waits, and the page would for half a minute
  await state.getByText("One moment").waitFor();
  await page.reload();
  await page.evaluate(() => { PushManager.prototype.subscribe = async () => { throw new DOMException("Registration failed - push service error", "AbortError"); }; });
  await on.click();
  await state.getByText("could not reach its push service").waitFor();
  assert.equal((await devices()).length, 0);
});

// From here on the double is the browser's push service.
await context.exposeFunction("subscribeAtDouble", async (key) => (await fetch(`${double}/subscribe`, { method: "POST", body: key })).text());
await context.addInitScript(() => {
  const base64url = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const subscription = (json, key) => json && {
    endpoint: JSON.parse(json).endpoint, toJSON: () => JSON.parse(json), options: { userVisibleOnly: true, applicationServerKey: key },
    unsubscribe: async () => { localStorage.removeItem("double"); return true; },
  };
  const kept = () => {
    const { json, key } = JSON.parse(localStorage.getItem("double") ?? "{}");
    return json ? subscription(json, Uint8Array.from(key).buffer) : null;
  };
  PushManager.prototype.getSubscription = async () => kept();
  PushManager.prototype.subscribe = async function ({ userVisibleOnly, applicationServerKey }) {
    if (!userVisibleOnly || applicationServerKey.length !== 65) throw new DOMException("refused", "InvalidAccessError");
    const json = await window.subscribeAtDouble(base64url(applicationServerKey));
    localStorage.setItem("double", JSON.stringify({ json, key: [...applicationServerKey] }));
    return kept();
  };
});

await step("one click subscribes, with the keyboard too, and makes one device", async () => {
  await page.reload();
  await on.focus();
  await page.keyboard.press("Enter");
  await off.waitFor();
  await state.getByText("also while this page is closed").waitFor();
  const [device, ...others] = await devices();
  assert.equal(others.length, 0);
  assert.equal(device.platform, "web");
  assert.equal(device.pushService, "webpush");
  assert.equal(device.status, "active");
  await page.reload(); // registers again: the same one
  await off.waitFor();
  await state.getByText("also while this page is closed").waitFor();
  assert.deepEqual((await devices()).map((d) => d.id), [device.id]);
  await page.screenshot({ path: join(shots, "push.png") });
  await watchWorker();
});

// asOwner asks the API as the superuser does.
let ownersToken;
const asOwner = async (path, body) => {
  const ask = async (path, body) => {
    const answer = await fetch(base + path, { method: body ? "POST" : "GET", headers: { "Content-Type": "application/json", Authorization: ownersToken ?? "" }, body: body && JSON.stringify(body) });
    assert.equal(answer.ok, true, `${path}: ${answer.status}`);
    return answer.json();
  };
  ownersToken ??= (await ask("/api/collections/_superusers/auth-with-password", { identity: "owner@example.com", password })).token;
  return ask(path, body);
};
const send = (email, title, fields) => asOwner("/api/collections/notifications/records",
  { title, channels: ["push"], audience: "filter", filter: `email = "${email}"`, action: "send", ...fields });

// deliver hands the browser what its push service would have brought.
const deliver = async (n) => {
  const data = await (await fetch(`${double}/messages/${n}`)).text();
  await until(() => registration); // the browser tells of it
  await cdp.send("ServiceWorker.deliverPushMessage", { origin: base, registrationId: registration.registrationId, data });
  return JSON.parse(data);
};
const until = async (what) => {
  for (const end = Date.now() + 120_000; Date.now() < end; await new Promise((r) => setTimeout(r, 20))) {
    const found = await what();
    if (found) return found;
  }
  throw new Error("it did not happen in two minutes");
};

await step("a message from the dashboard is shown", async () => {
  await dashboard.open(admin, "notifications");
  await dashboard.newRecord(admin);
  await dashboard.field(admin, "title").fill("Hello {{ user.name }}");
  await dashboard.field(admin, "body").fill("Your order is ready.");
  await dashboard.field(admin, "link").fill("https://example.com/orders/1");
  await dashboard.choose(admin, "channels", "push", "inbox");
  await dashboard.choose(admin, "audience", "filter");
  await dashboard.field(admin, "filter").fill('name = "Ana"');
  await dashboard.choose(admin, "action", "send");
  await dashboard.save(admin, "Create");
  await page.bringToFront();
  const message = await deliver(1);
  assert.equal(message.title, "Hello Ana");
  const [notification] = await until(async () => { const all = await shown(); return all.length && all; });
  assert.equal(notification.title, "Hello Ana");
  assert.equal(notification.body, "Your order is ready.");
  assert.equal(notification.tag, message.notification);
  assert.equal(notification.data.link, "https://example.com/orders/1");
  await page.locator("#inbox li", { hasText: "Your order is ready." }).waitFor(); // by realtime: nobody has loaded the page again
  await page.locator("#unread", { hasText: "1" }).waitFor();
});

await step("a repeat replaces what is shown", async () => {
  await deliver(1);
  const [, again] = await until(async () => { const all = await shown(); return all.length > 1 && all; });
  assert.equal(again.title, "Hello Ana");
  assert.equal(again.all, 1, "one at a time");
});

await step("what is no JSON is shown as text, and a silent one not at all", async () => {
  const registrationId = registration.registrationId;
  await cdp.send("ServiceWorker.deliverPushMessage", { origin: base, registrationId, data: "just text" });
  await until(async () => (await shown()).some((n) => n.title === "just text"));
  await page.evaluate(() => { window.pushed = []; navigator.serviceWorker.addEventListener("message", (e) => window.pushed.push(e.data)); navigator.serviceWorker.startMessages(); });
  await cdp.send("ServiceWorker.deliverPushMessage", { origin: base, registrationId, data: JSON.stringify({ silent: true, title: "quiet", badge: 2 }) });
  await until(() => page.evaluate(() => window.pushed.length > 0));
  assert.equal((await page.evaluate(() => window.pushed))[0].push.title, "quiet");
  assert.equal((await shown()).some((n) => n.title === "quiet"), false);
});

await step("a second message arrives at the same device", async () => {
  await send("ana@example.com", "Again", { options: { sound: "none" } });
  assert.equal((await deliver(2)).title, "Again");
  assert.equal((await until(async () => (await shown()).find((n) => n.title === "Again"))).silent, true);
});

await step("signing out ends it for this browser", async () => {
  await page.locator("#out").click();
  await page.locator("#guest").waitFor();
  // Nobody waits for it longer than a moment, and it goes on.
  await until(() => page.evaluate(() => localStorage.getItem("double") === null)); // unsubscribed
  await until(async () => (await page.evaluate(async () => (await (await navigator.serviceWorker.ready).getNotifications()).length)) === 0); // what was Ana's is not left on the screen
  await page.locator("#sign input[value=in]").check();
  await page.locator("#sign input[name=email]").fill("ana@example.com");
  await page.locator("#sign input[name=password]").fill(password);
  await page.locator("#sign button[type=submit]").click();
  await on.waitFor();
  await until(async () => (await devices()).length === 0);
  await page.locator("#out").click();
  await page.locator("#guest").waitFor();
});

// captured is the push that was kept here, once there is one.
const captured = async () => (await asOwner(`/api/collections/notification_deliveries/records?filter=${encodeURIComponent('status = "captured" && channel = "push"')}`)).items[0];

await step("for somebody else nothing leaves this machine, and the delivery says why", async () => {
  await page.locator("#sign input[value=up]").check();
  await signUp(page, "Bo");
  await on.click();
  await off.waitFor();
  await send("bo@example.com", "Only kept");
  const { explanation, rendered } = await until(captured);
  assert.match(explanation, /put the person's e-mail address into SEND_ONLY_TO/);
  assert.equal(rendered.title, "Only kept");
});

// offer sends Bo an advertisement by e-mail and returns its delivery.
const offer = async (title) => {
  const n = await send("bo@example.com", title, { channels: ["email"], category: "gwpromotional00" });
  return until(async () => (await asOwner(`/api/collections/notification_deliveries/records?filter=${encodeURIComponent(`notification = "${n.id}" && status != "pending"`)}`)).items[0]);
};

await step("the link of an offer unsubscribes with the keyboard alone", async () => {
  const bo = (await asOwner(`/api/collections/users/records?filter=${encodeURIComponent('email = "bo@example.com"')}`)).items[0];
  await asOwner("/api/collections/notification_consents/records", { user: bo.id, channel: "email", granted: true, source: "Sign-up form", wording: "Yes, send me offers." });
  const { rendered } = await offer("Half the price");
  const link = /\/api\/unsubscribe\/[\w-]+/.exec(rendered.text)[0];
  const tab = await context.newPage();
  await tab.goto(base + link);
  await tab.getByRole("heading", { name: "Unsubscribe", exact: true }).waitFor();
  for (let i = 0; i < 8 && (await tab.evaluate(() => document.activeElement.textContent)) !== "Unsubscribe"; i++) await tab.keyboard.press("Tab");
  await tab.keyboard.press("Enter");
  await tab.getByRole("heading", { name: "You are unsubscribed" }).waitFor();
  assert.deepEqual(await axeFaults(tab), []);
  await tab.close();
  assert.equal((await offer("A third of the price")).status, "skipped");
});

await step("and the button ends it too", async () => {
  await page.bringToFront();
  await off.click();
  await state.getByText("not notified any more").waitFor();
  await on.waitFor();
  assert.equal((await devices()).length, 0);
  await page.setViewportSize({ width: 320, height: 640 });
  await page.waitForFunction(() => innerWidth === 320);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 320, "nothing to scroll sideways");
  assert.deepEqual(await axeFaults(page), []);
});

assert.deepEqual(problems, []);
await context.close();
