// A message to everyone in the inbox of two people, with the stock SDK in Node.
//
//   node inbox.mjs BASE SUPERUSER_EMAIL PASSWORD
import { createRequire } from "node:module";
import { setTimeout as after } from "node:timers/promises";
import assert from "node:assert/strict";

const require = createRequire(new URL("../web/package.json", import.meta.url));
const { default: PocketBase } = await import(require.resolve("pocketbase"));
const { EventSource } = await import(require.resolve("eventsource"));
globalThis.EventSource = EventSource;

const [base, rootEmail, rootPassword] = process.argv.slice(2);
const password = "correct horse battery staple";

const step = async (name, fn) => {
  const start = Date.now();
  await fn();
  console.log(`ok    ${name} (${Date.now() - start} ms)`);
};
const until = async (what, condition) => {
  for (const end = Date.now() + 120_000; Date.now() < end;) {
    if (await condition()) return;
    await after(50);
  }
  assert.fail(`it never came: ${what}`);
};
const inbox = (pb) => pb.collection("notification_inbox");
const unread = async (pb) => (await pb.send("/api/notifications/unread", {})).unread;
const signUp = async (name, locale) => {
  const pb = new PocketBase(base);
  const email = `${name.toLowerCase()}@example.com`;
  await pb.collection("users").create({ email, name, locale, password, passwordConfirm: password });
  await pb.collection("users").authWithPassword(email, password);
  return pb;
};

const root = new PocketBase(base);
await root.collection("_superusers").authWithPassword(rootEmail, rootPassword);
const ana = await signUp("Ana", "en"), bo = await signUp("Bo", "fr");
const came = { ana: [], bo: [] };
let template;

const send = async (fields, people) => {
  const n = await root.collection("notifications").create({ audience: "everyone", channels: ["inbox"], confirmRecipients: people, action: "send", ...fields });
  let now;
  await until("it is sent", async () => (now = await root.collection("notifications").getOne(n.id)).status === "sent");
  return now;
};

await step("realtime brings it to both, each in their language", async () => {
  template = await root.collection("notification_templates").create({ key: "sale", title: "Sale, {{ user.name }}", body: "Half the price",
    translations: { fr: { title: "Soldes, {{ user.name }}" } } });
  await inbox(ana).subscribe("*", (e) => came.ana.push(`${e.action} ${e.record.title}`));
  await inbox(bo).subscribe("*", (e) => came.bo.push(`${e.action} ${e.record.title}`));
  const n = await send({ template: template.id }, 2);
  assert.deepEqual([n.total, n.sent, n.delivered], [2, 2, 2]);
  await until("both hear of it", () => came.ana.length + came.bo.length === 2);
  assert.deepEqual(came, { ana: ["create Sale, Ana"], bo: ["create Soldes, Bo"] });
});

await step("each has one unread, and reads it alone", async () => {
  assert.deepEqual([await unread(ana), await unread(bo)], [1, 1]);
  const [message] = await inbox(ana).getFullList({ filter: 'readAt = ""', sort: "-created" });
  await inbox(ana).update(message.id, { readAt: new Date().toISOString() });
  assert.deepEqual([await unread(ana), await unread(bo)], [0, 1]);
  await assert.rejects(inbox(bo).update(message.id, { readAt: "" }), (e) => e.status === 404);
  await until("Ana's other devices hear of it", () => came.ana.includes("update Sale, Ana"));
  assert.deepEqual(await inbox(ana).getFullList({ filter: 'readAt = ""' }), []);
});

await step("a newcomer has none", async () => {
  const cy = await signUp("Cy", "en");
  assert.equal(await unread(cy), 0);
  assert.deepEqual(await inbox(cy).getFullList(), []);
});

await step("who was away finds it, and reads all of it", async () => {
  await inbox(bo).unsubscribe();
  await send({ title: "Second" }, 3);
  assert.equal(came.bo.length, 1);
  assert.equal(await unread(bo), 2);
  assert.deepEqual((await inbox(bo).getList(1, 50, { sort: "-created" })).items.map((m) => m.title), ["Second", "Soldes, Bo"]);
  assert.deepEqual(await bo.send("/api/notifications/read-all", { method: "POST" }), { read: 2 });
  assert.equal(await unread(bo), 0);
});

await step("a guest has no inbox", async () => {
  const guest = new PocketBase(base);
  await assert.rejects(unread(guest), (e) => e.status === 401);
  assert.deepEqual(await inbox(guest).getFullList(), []);
});
process.exit(0);
