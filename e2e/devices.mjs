// What an app does with the stock SDK to get pushes: `create` at every start,
// whoever is signed in.
//
//   node devices.mjs BASE
import { createRequire } from "node:module";
import assert from "node:assert/strict";

const require = createRequire(new URL("../web/package.json", import.meta.url));
const { default: PocketBase } = await import(require.resolve("pocketbase"));

const base = process.argv[2];
const password = "a-long-password";

const signIn = async (email) => {
  const pb = new PocketBase(base);
  await pb.collection("users").create({ email, password, passwordConfirm: password });
  await pb.collection("users").authWithPassword(email, password);
  return { pb, devices: pb.collection("devices"), id: pb.authStore.record.id };
};
const step = async (name, fn) => {
  await fn();
  console.log(`ok    ${name}`);
};
const refused = async (status, promise) => {
  const error = await promise.then(() => assert.fail("it was not refused"), (e) => e);
  assert.equal(error.status, status, error.stack);
  return error.response;
};

const token = "0a1b".repeat(16);
const ana = await signIn("ana@example.com");
const ben = await signIn("ben@example.com");
const guest = new PocketBase(base).collection("devices");
let device;

await step("create", async () => {
  device = await ana.devices.create({ platform: "ios", token, locale: "fr-CA", model: "iPhone", appVersion: "1.0" });
  assert.equal(device.user, ana.id);
  assert.equal(device.pushService, "apns");
  assert.equal(device.status, "active");
});

await step("create again, twice at once", async () => {
  const again = await ana.devices.create({ platform: "ios", token: token.toUpperCase(), appVersion: "1.1" });
  assert.equal(again.id, device.id);
  assert.equal(again.appVersion, "1.1");
  assert.equal(again.model, "");
  const two = await Promise.all([1, 2].map(() => ana.devices.create({ platform: "android", token: "fcm-token" }, { requestKey: null })));
  assert.equal(two[0].id, two[1].id);
  assert.equal((await ana.devices.getFullList()).length, 2);
});

await step("another person on the same device", async () => {
  await ana.devices.update(device.id, { locale: "fr-CA", model: "Ana's iPhone" });
  const moved = await ben.devices.create({ platform: "ios", token }, { expand: "user" });
  assert.equal(moved.id, device.id);
  assert.equal(moved.user, ben.id);
  assert.ok(!JSON.stringify(moved).includes("Ana") && !JSON.stringify(moved).includes(ana.id) && moved.locale === "");
});

await step("list and view", async () => {
  assert.deepEqual((await ana.devices.getFullList()).map((d) => d.token), ["fcm-token"]);
  assert.deepEqual((await ben.devices.getFullList()).map((d) => d.id), [device.id]);
  await refused(404, ana.devices.getOne(device.id));
  assert.deepEqual(await guest.getFullList(), []);
});

await step("update what is the owner's", async () => {
  const changed = await ben.devices.update(device.id, { locale: "de", timezone: "Europe/Berlin", user: ana.id, token: "x", platform: "web", status: "gone" });
  assert.equal(changed.timezone, "Europe/Berlin");
  assert.deepEqual([changed.user, changed.token, changed.platform, changed.status], [ben.id, token, "ios", "active"]);
  await refused(404, ana.devices.update(device.id, { locale: "fr" }));
});

await step("what is wrong is said at the field", async () => {
  const answer = await refused(400, ben.devices.create({ platform: "ios", token: "short", locale: "??" }));
  assert.match(answer.data.token.message, /64 to 200 hexadecimal digits/);
  assert.match(answer.data.locale.message, /fr-CA/);
  await refused(400, guest.create({ platform: "ios", token }));
});

await step("a browser's subscription, as it is", async () => {
  const { publicKey } = await crypto.subtle.generateKey({ name: "ECDH", namedCurve: "P-256" }, true, ["deriveBits"]);
  const base64url = (bytes) => Buffer.from(bytes).toString("base64url");
  const subscription = {
    endpoint: "https://push.example.com/send/abc", expirationTime: null,
    keys: { p256dh: base64url(await crypto.subtle.exportKey("raw", publicKey)), auth: base64url(crypto.getRandomValues(new Uint8Array(16))) },
  };
  const first = await ana.devices.create({ platform: "web", token: JSON.stringify(subscription) });
  const second = await ana.devices.create({ platform: "web", token: subscription });
  assert.equal(second.id, first.id);
  assert.deepEqual(JSON.parse(second.token), { endpoint: subscription.endpoint, keys: subscription.keys });
});

await step("delete", async () => {
  await refused(404, ana.devices.delete(device.id));
  await ben.devices.delete(device.id);
  assert.deepEqual(await ben.devices.getFullList(), []);
});
