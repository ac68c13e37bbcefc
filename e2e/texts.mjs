// What an owner's script does with the stock SDK before and after a message goes
// out: translations, each person's rows, a preview, a test, reminders.
//
//   node texts.mjs BASE SUPERUSER_EMAIL PASSWORD PHASE
//
// The phase "reminded" is for later, when the server was killed in between.
import { createRequire } from "node:module";
import { setTimeout as after } from "node:timers/promises";
import assert from "node:assert/strict";

const require = createRequire(new URL("../web/package.json", import.meta.url));
const { default: PocketBase } = await import(require.resolve("pocketbase"));

const [base, email, rootPassword, phase] = process.argv.slice(2);
const password = "a-long-password", visits = 60;
const root = new PocketBase(base);
root.autoCancellation(false);
await root.collection("_superusers").authWithPassword(email, rootPassword);

const step = async (name, fn) => {
  await fn();
  console.log(`ok    ${name}`);
};
const refused = async (status, promise) => {
  const error = await promise.then(() => assert.fail("it was not refused"), (e) => e);
  assert.equal(error.status, status, error.stack);
  return error.response;
};
const until = async (what, get) => {
  for (const deadline = Date.now() + 120_000; Date.now() < deadline; await after(50)) {
    const got = await get();
    if (got) return got;
  }
  assert.fail(`never: ${what}`);
};
const post = (client, path, body) => client.send(path, { method: "POST", body });

if (phase === "reminded") {
  const inbox = () => root.collection("notification_inbox").getFullList({ filter: 'title ~ "Visit "' });
  await until("every visit is told", async () => (await inbox()).length >= visits);
  await until("all of it is over", async () => (await root.collection("notifications").getList(1, 1, { filter: 'status = "queued" || status = "sending"' })).totalItems === 0);
  const titles = (await inbox()).map((m) => m.title).sort();
  assert.equal(new Set(titles).size, visits);
  assert.equal(titles.length, visits, "each exactly once");
  console.log("ok    each reminder exactly once");
  process.exit(0);
}

const person = async (name, locale) => {
  const record = await root.collection("users").create({ email: `${name}@example.com`, password, passwordConfirm: password, name, locale, verified: true });
  const pb = new PocketBase(base);
  await pb.collection("users").authWithPassword(`${name}@example.com`, password);
  return { id: record.id, pb };
};
const ana = await person("Ana", "fr-CA"), ben = await person("Ben", ""), guest = new PocketBase(base);
let template, draft;

await step("a template in two languages, with each person's rows", async () => {
  await root.collections.create({ name: "orders", type: "base", fields: [
    { name: "user", type: "relation", collectionId: "_pb_users_auth_", maxSelect: 1 }, { name: "item", type: "text" }, { name: "secret", type: "text", hidden: true },
  ] });
  await root.collections.create({ name: "bought", type: "view", viewQuery: "SELECT id, user, item FROM orders ORDER BY item" });
  for (const item of ["Lamp", "<b>Chair</b>"]) await root.collection("orders").create({ user: ana.id, item, secret: "s" });
  const fields = { key: "digest", title: "{{ rows | size }} orders", body: "{% for r in rows %}{{ r.item }};{% endfor %}", dataFrom: "bought",
    emailHtml: "{% for r in rows %}<p>{{ r.item }}</p>{% endfor %}" };
  const broken = await refused(400, root.collection("notification_templates").create({ ...fields, translations: { fr: { body: "Un\n{{ x | nope }}" } } }));
  assert.match(broken.data.translations.message, /In fr, body, line 2: There is no filter "nope"/);
  const nowhere = await refused(400, root.collection("notification_templates").create({ ...fields, dataFrom: "nowhere" }));
  assert.match(nowhere.data.dataFrom.message, /There is no collection or view "nowhere"/);
  template = await root.collection("notification_templates").create({ ...fields, translations: { fr: { title: "{{ rows | size }} commandes" } } });
});

await step("a preview", async () => {
  const fields = { template: template.id, channels: ["email", "inbox"], audience: "everyone" };
  await refused(401, post(guest, "/api/notifications/preview", fields));
  await refused(403, post(ana.pb, "/api/notifications/preview", fields));
  const preview = await post(root, "/api/notifications/preview", { ...fields, sample: ana.id });
  assert.equal(preview.people, 2);
  assert.deepEqual(preview.channels.map((c) => [c.channel, c.targets, c.withoutAddress]), [["email", 2, 0], ["inbox", 2, 0]]);
  assert.equal(preview.sample.messages.inbox.title, "2 commandes");
  assert.equal(preview.sample.messages.email.html, "<p>&lt;b&gt;Chair&lt;/b&gt;</p><p>Lamp</p>");
  const wrong = await refused(400, post(root, "/api/notifications/preview", { ...fields, channels: ["pigeon"] }));
  assert.ok(wrong.data.channels);
  assert.equal((await root.collection("notifications").getList(1, 1)).totalItems, 0);
});

await step("a test, to a person and to an address", async () => {
  draft = await root.collection("notifications").create({ template: template.id, channels: ["email", "inbox"], audience: "everyone" });
  await refused(401, post(guest, `/api/notifications/${draft.id}/test`, { user: ana.id }));
  await refused(403, post(ana.pb, `/api/notifications/${draft.id}/test`, { user: ana.id }));
  const ended = async ({ deliveries }) => Promise.all(deliveries.map(({ id }) => until("a test ends", async () => {
    const d = await root.collection("notification_deliveries").getOne(id);
    return !["pending", "sending"].includes(d.status) && d;
  })));
  const rows = await ended(await post(root, `/api/notifications/${draft.id}/test`, { user: ana.id }));
  assert.deepEqual(rows.map((d) => [d.channel, d.status, d.test]), [["email", "captured", true], ["inbox", "delivered", true]]);
  const [press] = await ended(await post(root, `/api/notifications/${draft.id}/test`, { address: "press@example.com", sample: ana.id }));
  assert.equal(press.rendered.subject, "2 commandes");
  assert.equal((await root.collection("notifications").getOne(draft.id)).total, 0);
  assert.equal((await ana.pb.collection("notification_inbox").getFullList()).length, 1);
});

await step("the message itself", async () => {
  await root.collection("notifications").update(draft.id, { action: "send", confirmRecipients: 2 });
  const sent = await until("it is sent", async () => {
    const n = await root.collection("notifications").getOne(draft.id);
    return n.status === "sent" && n;
  });
  assert.deepEqual([sent.total, sent.sent, sent.skipped], [4, 2, 2]);
  assert.equal((await ana.pb.collection("notification_inbox").getFullList({ sort: "-created" }))[0].body, "<b>Chair</b>;Lamp;");
  assert.deepEqual(await ben.pb.collection("notification_inbox").getFullList(), []);
  const skipped = await root.collection("notification_deliveries").getFullList({ filter: 'status = "skipped"' });
  assert.ok(skipped.every((d) => d.reason === "nothing_to_say" && d.user === ben.id));
});

await step("reminders are set", async () => {
  await root.collections.create({ name: "visits", type: "base", fields: [
    { name: "who", type: "relation", collectionId: "_pb_users_auth_", maxSelect: 1 }, { name: "startsAt", type: "date" }, { name: "what", type: "text" },
  ] });
  const reminder = await root.collection("notification_templates").create({ key: "visit", title: "Visit {{ record.what }}" });
  const trigger = { name: "Visit", collection: "visits", event: "date", dateField: "startsAt", offsetMinutes: -60, recipient: "who", template: reminder.id, channels: ["inbox"], enabled: true };
  const wrong = await refused(400, root.collection("notification_triggers").create({ ...trigger, dateField: "what" }));
  assert.match(wrong.data.dateField.message, /is no date/);
  await root.collection("notification_triggers").create(trigger);
  const startsAt = new Date(Date.now() + 30 * 60_000).toISOString();
  for (let i = 0; i < visits; i++) await root.collection("visits").create({ who: ana.id, startsAt, what: `${i}` });
  await root.collection("visits").create({ who: ana.id, startsAt: new Date(Date.now() - 3 * 3600_000).toISOString(), what: "over" });
});
