// What an app does with the stock SDK to ask for consent, and to let people take it
// back.
//
//   node consent.mjs BASE
import { createRequire } from "node:module";
import assert from "node:assert/strict";

const require = createRequire(new URL("../web/package.json", import.meta.url));
const { default: PocketBase } = await import(require.resolve("pocketbase"));

const base = process.argv[2];
const password = "a-long-password";
const wording = "Yes, send me offers by e-mail. I can stop them at any time.";

const signIn = async (email) => {
  const pb = new PocketBase(base);
  await pb.collection("users").authWithPassword(email, password);
  return { pb, consents: pb.collection("notification_consents"), id: pb.authStore.record.id };
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

const ana = await signIn("ana@example.com");
const bo = await signIn("bo@example.com");
const guest = new PocketBase(base).collection("notification_consents");
let given;

await step("agree", async () => {
  given = await ana.consents.create({ channel: "email", granted: true, source: "Settings", wording, address: "x@example.com", ip: "203.0.113.1" });
  assert.equal(given.user, ana.id);
  assert.equal(given.address, "ana@example.com");
  assert.equal(given.recordedBy, "person");
  assert.equal(given.kind, "promotional");
  assert.match(given.ip, /^(127\.0\.0\.1|::1)$/);
});

await step("what is missing is said at the field", async () => {
  assert.match((await refused(400, ana.consents.create({ channel: "email", granted: true, source: "Settings" }))).data.wording.message, /exact words/);
  assert.match((await refused(400, ana.consents.create({ channel: "email", source: "Settings", wording }))).data.granted.message, /true when the person agrees/);
  assert.match((await refused(400, ana.consents.create({ channel: "sms", granted: true, source: "Settings", wording }))).data.channel.message, /no phone number/);
  await refused(400, guest.create({ channel: "email", granted: true, source: "Settings", wording, user: ana.id }));
  await refused(400, bo.consents.create({ channel: "email", granted: true, source: "Settings", wording, user: ana.id }));
});

await step("one's own, and nobody else's", async () => {
  assert.deepEqual((await ana.consents.getFullList()).map((c) => c.id), [given.id]);
  assert.deepEqual(await bo.consents.getFullList(), []);
  assert.deepEqual(await guest.getFullList(), []);
  await refused(404, bo.consents.getOne(given.id));
});

await step("what was said stays", async () => {
  await refused(403, ana.consents.update(given.id, { granted: false }));
  await refused(403, ana.consents.delete(given.id));
  await refused(403, bo.consents.update(given.id, { granted: false }));
});

await step("change one's mind, twice", async () => {
  await ana.consents.create({ channel: "email", granted: false, source: "Settings" });
  await ana.consents.create({ channel: "email", granted: true, source: "Settings", wording });
  assert.deepEqual((await ana.consents.getFullList({ sort: "created" })).map((c) => c.granted), [true, false, true]);
});
