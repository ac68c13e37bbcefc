// What decides who gets what, with the stock SDK, as a guest, another person, the
// owner and a superuser: topics, preferences, suppressions, bounces, an idempotency
// key, the events of triggers, and a JavaScript hook that sends.
//
//   node wishes.mjs BASE ROOT_EMAIL ROOT_PASSWORD WEBHOOK_SECRET
import { createRequire } from "node:module";
import { setTimeout as after } from "node:timers/promises";
import assert from "node:assert/strict";

const require = createRequire(new URL("../web/package.json", import.meta.url));
const { default: PocketBase } = await import(require.resolve("pocketbase"));

const [base, rootEmail, rootPassword, secret] = process.argv.slice(2);
const password = "a-long-password";

const step = async (name, fn) => {
  await fn();
  console.log(`ok    ${name}`);
};
// status is what a request ends with; 200 stands for every success.
const status = (promise) => promise.then(() => 200, (e) => e.status);
const until = async (what, get) => {
  for (const end = Date.now() + 120_000; Date.now() < end; await after(30)) {
    const got = await get();
    if (got) return got;
  }
  assert.fail(`never: ${what}`);
};
const client = () => {
  const pb = new PocketBase(base);
  pb.autoCancellation(false);
  return pb;
};
const root = client();
await root.collection("_superusers").authWithPassword(rootEmail, rootPassword);
const signUp = async (name) => {
  const pb = client();
  await pb.collection("users").create({ email: `${name}@example.com`, name, password, passwordConfirm: password });
  await pb.collection("users").authWithPassword(`${name}@example.com`, password);
  return pb;
};
const guest = client(), bo = await signUp("bo"), ana = await signUp("ana");
const me = ana.authStore.record.id;
// asAll does the same as a guest, another person, the owner and a superuser.
const asAll = async (want, fn) => {
  const got = [];
  for (const pb of [guest, bo, ana, root]) got.push(await status(fn(pb)));
  assert.deepEqual(got, want);
};
// send is what became of a message to Ana, by channel.
const send = async (fields) => {
  const n = await root.collection("notifications").create({ title: "Hi", channels: ["email"], audience: "users", users: [me], action: "send", ...fields });
  await until("it is over", async () => (await root.collection("notifications").getOne(n.id)).finishedAt);
  const rows = await root.collection("notification_deliveries").getFullList({ filter: `notification = "${n.id}" && user = "${me}"` });
  return Object.fromEntries(rows.map((d) => [d.channel, d.status === "skipped" ? d.reason : d.status]));
};
const inbox = async (pb = ana) => (await pb.collection("notification_inbox").getFullList({ sort: "created" })).map((m) => m.title);

await step("topics", async () => {
  const topics = root.collection("notification_topics");
  const open = await topics.create({ key: "news", name: "News", open: true }), closed = await topics.create({ key: "staff", name: "Staff" });
  await asAll([404, 404, 404, 200], (pb) => pb.collection("notification_topics").getOne(closed.id));
  await asAll([404, 200, 200, 200], (pb) => pb.collection("notification_topics").getOne(open.id));
  await asAll([401, 403, 403, 200], (pb) => pb.collection("notification_topics").create({ key: "x", name: "X" }).then((t) => pb.collection("notification_topics").delete(t.id)));
  for (const pb of [guest, bo, ana]) assert.equal(await status(pb.collection("notification_subscriptions").create({ topic: closed.id })), 400);
  assert.equal(await status(guest.collection("notification_subscriptions").create({ topic: open.id, user: me })), 400);
  assert.equal(await status(bo.collection("notification_subscriptions").create({ topic: open.id, user: me })), 400);

  const to = { audience: "topic", topics: [open.id], users: [], channels: ["inbox"] };
  assert.deepEqual(await send(to), {});
  const own = await ana.collection("notification_subscriptions").create({ topic: open.id });
  assert.equal(own.user, me);
  assert.deepEqual(await send(to), { inbox: "delivered" });
  await asAll([404, 404, 200, 200], (pb) => pb.collection("notification_subscriptions").getOne(own.id));
  assert.equal(await status(bo.collection("notification_subscriptions").delete(own.id)), 404);
  await ana.collection("notification_subscriptions").delete(own.id);
  assert.deepEqual(await send(to), {});
  assert.deepEqual(await inbox(bo), []);
});

await step("preferences", async () => {
  const preferences = (pb) => pb.collection("notification_preferences");
  const category = (await root.collection("notification_categories").create({ key: "tips", name: "Tips", kind: "transactional", canOptOut: true })).id;
  const own = await preferences(ana).create({ channel: "email", category, enabled: false });
  assert.deepEqual(await send({ category, channels: ["email", "inbox"] }), { email: "opted_out", inbox: "delivered" });
  await asAll([404, 404, 200, 200], (pb) => preferences(pb).getOne(own.id));
  for (const pb of [guest, bo]) assert.equal(await status(preferences(pb).update(own.id, { enabled: true })), 404);
  assert.equal(await status(guest.collection("notification_preferences").create({ user: me, channel: "inbox", enabled: false })), 400);
  await preferences(ana).update(own.id, { enabled: true, user: bo.authStore.record.id });
  assert.equal((await preferences(root).getOne(own.id)).user, me, "it stays hers");
  assert.deepEqual(await send({ category }), { email: "captured" });
  await preferences(root).delete(own.id);
});

await step("suppressions", async () => {
  const suppressions = (pb) => pb.collection("notification_suppressions");
  const body = { channel: "email", address: " ANA@example.com ", reason: "manual" };
  await asAll([401, 403, 403, 200], (pb) => suppressions(pb).create(body));
  const row = await suppressions(root).getFirstListItem("id != ''");
  assert.equal(row.address, "ana@example.com");
  await asAll([401, 403, 403, 200], (pb) => suppressions(pb).getOne(row.id));
  assert.deepEqual(await send({ channels: ["email", "inbox"] }), { email: "suppressed", inbox: "delivered" });
  for (const [pb, want] of [[guest, 401], [bo, 403], [ana, 403], [root, 200]]) assert.equal(await status(suppressions(pb).delete(row.id)), want);
  assert.deepEqual(await send({}), { email: "captured" });
});

await step("a bounce that the mail provider tells of", async () => {
  const tell = (pb, headers) => pb.send("/api/webhooks/email", { method: "POST", headers, body: { events: [{ type: "bounce", permanent: true, address: "ana@example.com", reason: "no such box" }] } });
  await asAll([403, 403, 403, 403], (pb) => tell(pb));
  assert.deepEqual(await send({}), { email: "captured" });
  assert.equal((await tell(guest, { Authorization: `Bearer ${secret}` })).applied, 1);
  assert.deepEqual(await send({}), { email: "suppressed" });
  const [row] = await root.collection("notification_suppressions").getFullList();
  assert.equal(row.reason, "bounce");
  await root.collection("notification_suppressions").delete(row.id);
});

await step("an idempotency key", async () => {
  const body = { title: "Once", channels: ["inbox"], audience: "users", users: [me], idempotencyKey: "order-17", action: "send" };
  await asAll([401, 403, 403, 200], (pb) => pb.collection("notifications").create(body));
  const error = await root.collection("notifications").create(body).catch((e) => e);
  assert.deepEqual([error.status, Object.keys(error.response.data)], [400, ["idempotencyKey"]]);
  await until("it arrives", async () => (await inbox()).includes("Once"));
});

await step("each event of a trigger", async () => {
  const mine = "owner = @request.auth.id && @request.auth.id != ''";
  await root.collections.create({ name: "tasks", type: "base", listRule: mine, viewRule: mine, createRule: mine, updateRule: mine, deleteRule: mine, fields: [
    { name: "owner", type: "relation", collectionId: "_pb_users_auth_", maxSelect: 1 }, { name: "state", type: "text" }, { name: "due", type: "date" },
  ] });
  const template = await root.collection("notification_templates").create({ key: "task", title: "{{ record.state }}" });
  const trigger = { collection: "tasks", recipient: "owner", template: template.id, channels: ["inbox"], enabled: true };
  await asAll([401, 403, 403, 200], (pb) => pb.collection("notification_triggers").create({ ...trigger, name: "New", event: "created" }));
  await root.collection("notification_triggers").create({ ...trigger, name: "Done", event: "updated", condition: 'state = "done"' });
  await root.collection("notification_triggers").create({ ...trigger, name: "Gone", event: "deleted" });

  const tasks = (pb) => pb.collection("tasks");
  const told = (await inbox()).length;
  // next waits for the next message and looks at all since then.
  const expect = (...want) => until(`told ${want}`, async () => {
    const got = (await inbox()).slice(told);
    assert.ok(got.length <= want.length, `${got}`);
    return got.length === want.length && (assert.deepEqual(got, want), true);
  });
  await asAll([400, 400, 200, 200], (pb) => tasks(pb).create({ owner: me, state: "new" })); // a superuser's is an import
  await expect("new");
  const task = await tasks(ana).getFirstListItem("id != ''");
  for (const pb of [guest, bo]) assert.equal(await status(tasks(pb).update(task.id, { state: "done" })), 404);
  await tasks(ana).update(task.id, { state: "done" });
  await expect("new", "done");
  await tasks(root).update(task.id, { state: "done", due: "2030-01-01 00:00:00Z" }); // no transition
  await tasks(root).update(task.id, { state: "open" });
  await tasks(root).update(task.id, { state: "done" });
  await expect("new", "done", "done");
  for (const pb of [guest, bo]) assert.equal(await status(tasks(pb).delete(task.id)), 404);
  await tasks(ana).update(task.id, { state: "over" });
  await tasks(ana).delete(task.id);
  await expect("new", "done", "done", "over");
});

await step("a JavaScript hook sends, previews and cancels", async () => {
  const before = (await inbox()).length;
  const ask = (pb) => pb.send("/api/shop/hello", { method: "POST" });
  await asAll([401, 200, 200, 403], ask); // the hook's own rule: signed-in people
  assert.deepEqual(await ask(ana), { people: 1, later: "cancelled" });
  const mine = await until("it arrives", async () => { const all = await inbox(); return all.length > before && all.slice(before); });
  assert.deepEqual(mine, ["Hello ana"], "twice asked for, and once sent: it has a key");
  await until("Bo's too", async () => (await inbox(bo)).includes("Hello bo"));
});
