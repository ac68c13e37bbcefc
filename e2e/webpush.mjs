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
const shown = () => page.evaluate(async () => (await (await navigator.serviceWorker.ready).getNotifications())
  .map((n) => ({ title: n.title, body: n.body, tag: n.tag, data: n.data })));

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
});

const sendFromDashboard = async (title, to, fields = {}) => {
  await dashboard.open(admin, "notifications");
  await dashboard.newRecord(admin);
  await dashboard.field(admin, "title").fill(title);
  for (const [name, value] of Object.entries(fields)) await dashboard.field(admin, name).fill(value);
  await dashboard.choose(admin, "channels", "push");
  await dashboard.choose(admin, "audience", "users");
  await dashboard.pick(admin, "users", to);
  await dashboard.choose(admin, "action", "send");
  await dashboard.save(admin, "Create");
};

// deliver hands the browser what its push service would have brought.
const deliver = async (n) => {
  const data = await (await fetch(`${double}/messages/${n}`)).text();
  assert.ok(registration, "the service worker is registered");
  await cdp.send("ServiceWorker.deliverPushMessage", { origin: base, registrationId: registration.registrationId, data });
  return JSON.parse(data);
};
const until = async (what) => {
  for (const end = Date.now() + 60_000; Date.now() < end; await new Promise((r) => setTimeout(r, 20))) {
    const found = await what();
    if (found) return found;
  }
  throw new Error("it did not happen in a minute");
};

await step("a message from the dashboard is shown", async () => {
  await sendFromDashboard("Hello {{ user.name }}", "Ana", { body: "Your order is ready.", link: "https://example.com/orders/1" });
  await page.bringToFront();
  const message = await deliver(1);
  assert.equal(message.title, "Hello Ana");
  const [notification] = await until(async () => { const all = await shown(); return all.length && all; });
  assert.equal(notification.title, "Hello Ana");
  assert.equal(notification.body, "Your order is ready.");
  assert.equal(notification.tag, message.notification);
  assert.equal(notification.data.link, "https://example.com/orders/1");
});

await step("a repeat replaces what is shown", async () => {
  await deliver(1);
  await new Promise((r) => setTimeout(r, 200)); // a second one would be there by then, most of the time
  assert.equal((await shown()).length, 1);
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
  await sendFromDashboard("Again", "Ana");
  await page.bringToFront();
  assert.equal((await deliver(2)).title, "Again");
  await until(async () => (await shown()).some((n) => n.title === "Again"));
});

await step("signing out ends it for this browser", async () => {
  await page.locator("#out").click();
  await page.locator("#guest").waitFor();
  assert.equal(await page.evaluate(() => localStorage.getItem("double")), null, "unsubscribed");
  assert.equal((await shown()).length, 0, "what was Ana's is not left on the screen");
  await page.locator("#sign input[value=in]").check();
  await page.locator("#sign input[name=email]").fill("ana@example.com");
  await page.locator("#sign input[name=password]").fill(password);
  await page.locator("#sign button[type=submit]").click();
  await on.waitFor();
  assert.equal((await devices()).length, 0);
  await page.locator("#out").click();
  await page.locator("#guest").waitFor();
});

// captured asks as a superuser whether a message was kept.
const captured = async () => {
  const headers = { "Content-Type": "application/json" };
  const { token } = await (await fetch(`${base}/api/collections/_superusers/auth-with-password`,
    { method: "POST", headers, body: JSON.stringify({ identity: "owner@example.com", password }) })).json();
  const filter = encodeURIComponent('status = "captured"');
  return (await (await fetch(`${base}/api/collections/notification_deliveries/records?filter=${filter}`, { headers: { Authorization: token } })).json()).totalItems > 0;
};

await step("for somebody else nothing leaves this machine, and the delivery says why", async () => {
  await page.locator("#sign input[value=up]").check();
  await signUp(page, "Bo");
  await on.click();
  await off.waitFor();
  await sendFromDashboard("Only kept", "Bo");
  await until(captured);
  await dashboard.open(admin, "notification_deliveries");
  await dashboard.edit(admin, "captured");
  await admin.getByText("put the person's e-mail address into SEND_ONLY_TO").last().waitFor();
  await admin.getByRole("button", { name: "Close", exact: true }).last().click();
});

await step("and the button ends it too", async () => {
  await page.bringToFront();
  await off.click();
  await state.getByText("not notified any more").waitFor();
  await on.waitFor();
  assert.equal((await devices()).length, 0);
  await page.setViewportSize({ width: 320, height: 640 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 320, "nothing to scroll sideways");
  assert.deepEqual(await axeFaults(page), []);
});

assert.deepEqual(problems, []);
await context.close();
