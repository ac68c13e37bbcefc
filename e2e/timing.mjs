// Messages for later with the stock SDK: a time of everybody's own, quiet hours, caps,
// an SMS in place of a push, and what was opened.
//
//   node timing.mjs BASE before|after ROOT_EMAIL ROOT_PASSWORD
import { createRequire } from "node:module";
import assert from "node:assert/strict";

const require = createRequire(new URL("../web/package.json", import.meta.url));
const { default: PocketBase } = await import(require.resolve("pocketbase"));

const [base, part, rootEmail, rootPassword] = process.argv.slice(2);
const password = "a-long-password";
const root = new PocketBase(base);
root.autoCancellation(false); // the same is asked several times at once
await root.collection("_superusers").authWithPassword(rootEmail, rootPassword);
const notifications = root.collection("notifications");

const signUp = async (name, fields = {}) => {
  const pb = new PocketBase(base);
  await pb.collection("users").create({ email: `${name}@example.com`, password, passwordConfirm: password, ...fields });
  await pb.collection("users").authWithPassword(`${name}@example.com`, password);
  return pb;
};
const signIn = async (name) => {
  const pb = new PocketBase(base);
  await pb.collection("users").authWithPassword(`${name}@example.com`, password);
  return pb;
};
const id = (pb) => pb.authStore.record.id;
const step = async (name, fn) => {
  await fn();
  console.log(`ok    ${name}`);
};
const refused = async (status, promise) => {
  const error = await promise.then(() => assert.fail("it was not refused"), (e) => e);
  assert.equal(error.status, status, error.stack);
  return error.response;
};
const send = (title, users, fields) => notifications.create({ title, body: "Hello", channels: ["email"], audience: "users", users: users.map(id), action: "send", ...fields });
const sent = (title) => notifications.getFirstListItem(`title = "${title}"`);
const deliveries = async (n) => Object.fromEntries((await root.collection("notification_deliveries").getFullList({ filter: `notification = "${n.id}"` }))
  .map((d) => [`${d.user} ${d.channel}`, d]));
// until asks again and again: at most for two minutes.
const until = async (what, ask) => {
  for (const end = Date.now() + 120_000; Date.now() < end; await new Promise((r) => setTimeout(r, 100))) {
    const found = await ask();
    if (found) return found;
  }
  assert.fail(`it never came to this: ${what}`);
};
const counts = (n) => [n.total, n.sent, n.pending];

if (part === "before") {
  const ana = await signUp("ana", { timezone: "UTC" });
  const cleo = await signUp("cleo", { timezone: "Etc/GMT+5" });
  const dora = await signUp("dora", { timezone: "UTC" });

  await step("a time of everybody's own", async () => {
    const at = new Date(Date.now() + 10_000).toISOString().replace("T", " ");
    const n = await send("own clock", [ana, cleo], { localTime: true, sendAt: at });
    assert.match(n.statusReason, /on each person's own clock/);
    const planned = await until("both are planned", async () => { const now = await sent("own clock"); return now.total === 2 && now; });
    assert.ok(planned.pending === 2 || new Date(at) < new Date(), "nothing goes out before its time");
  });

  await step("quiet hours", async () => {
    const hour = (h) => `${String((new Date().getUTCHours() + h + 24) % 24).padStart(2, "0")}:00`;
    const preferences = dora.collection("notification_preferences");
    await refused(400, preferences.create({ quietFrom: hour(-1) }));
    const wish = await preferences.create({ quietFrom: hour(-1), quietTo: hour(3) });
    assert.equal(wish.enabled, true);
    const night = await send("night", [dora]);
    const held = await until("it is held back", async () => Object.values(await deliveries(night)).find((d) => d.reason === "quiet_hours"));
    assert.equal(held.status, "pending");
    assert.match(held.explanation, /Held back for quiet hours until /);
    assert.ok(new Date(held.nextAttemptAt) > new Date());
    const urgent = await send("urgent", [dora], { options: { ignoreQuietHours: true } });
    await until("this one is not", async () => (await notifications.getOne(urgent.id)).status === "sent");
  });

  await step("caps", async () => {
    const news = await root.collection("notification_categories").create({ key: "news", name: "News", kind: "promotional", frequencyCap: 1 });
    await root.collection("users").update(id(ana), { verified: true }); // or it counts for nothing yet
    await ana.collection("notification_consents").create({ channel: "email", granted: true, source: "Sign-up form", wording: "Send me news." });
    const two = await Promise.all([1, 2].map((i) => notifications.create({ title: `news ${i}`, body: "Hello", channels: ["email"], audience: "users", users: [id(ana)],
      category: news.id, action: "send" })));
    const reasons = await until("both are over", async () => {
      const all = (await Promise.all(two.map(deliveries))).flatMap((d) => Object.values(d));
      return all.length === 2 && all.every((d) => d.status !== "pending") && all.map((d) => d.reason).sort();
    });
    assert.deepEqual(reasons, ["captured", "frequency_cap"]);
  });

  await step("a push that may become an SMS", async () => {
    await ana.collection("devices").create({ platform: "android", token: "ana-token" });
    await cleo.collection("devices").create({ platform: "android", token: "cleo-token" });
    for (const [pb, phone] of [[ana, "+447700900001"], [cleo, "+447700900002"]]) await root.collection("users").update(id(pb), { phone });
    assert.match((await refused(400, send("no push", [ana], { smsAfterMinutes: 1 }))).data.smsAfterMinutes.message, /push/);
    const n = await send("push", [ana, cleo], { channels: ["push"], smsAfterMinutes: 60 });
    await until("both have theirs", async () => (await notifications.getOne(n.id)).sent === 2);
    assert.equal((await notifications.getOne(n.id)).status, "sending");
  });

  await step("opened", async () => {
    const n = await sent("push");
    const mine = (await deliveries(n))[`${id(ana)} push`];
    const opened = (pb, body) => pb.send("/api/notifications/opened", { method: "POST", body });
    await refused(404, opened(cleo, { delivery: mine.id }));
    await refused(401, opened(new PocketBase(base), { delivery: mine.id }));
    await refused(404, opened(new PocketBase(base), { token: `${mine.id}.AAAAAAAAAAAAAAAAAAAAAA` }));
    await opened(ana, { delivery: mine.id });
    await opened(ana, { delivery: mine.id });
    await until("it is counted once", async () => (await sent("push")).opened === 1);
    // In a link of a mail.
    const mail = await send("link", [ana], { body: "https://shop.example.com/?opened={{ openToken }}" });
    const { rendered } = await until("the mail", async () => Object.values(await deliveries(mail)).find((d) => d.status === "captured"));
    await opened(new PocketBase(base), { token: /opened=(\S+)/.exec(rendered.text)[1] });
    await until("the guest's token counts", async () => (await sent("link")).opened === 1);
  });
} else {
  const [ana, cleo, dora] = await Promise.all(["ana", "cleo", "dora"].map(signIn));

  await step("a time of everybody's own", async () => {
    const n = await sent("own clock");
    const mine = await until("Ana's time comes", async () => (await deliveries(n))[`${id(ana)} email`]);
    await until("it goes out", async () => (await deliveries(n))[`${id(ana)} email`].status === "captured");
    assert.ok(new Date(mine.created) >= new Date(n.sendAt), `${mine.created} is before ${n.sendAt}`);
    assert.deepEqual(counts(await until("it is counted", async () => { const now = await sent("own clock"); return now.sent === 1 && now; })), [2, 1, 1]);
  });

  await step("quiet hours", async () => {
    const held = (await deliveries(await sent("night")))[`${id(dora)} email`];
    assert.deepEqual([held.status, held.reason, held.attempts], ["pending", "quiet_hours", 0]);
  });

  await step("a push that became an SMS", async () => {
    const n = await sent("push");
    for (const action of ["pause", "resume"]) await notifications.update(n.id, { action }); // does what an hour more would
    await until("it is over", async () => (await sent("push")).status === "sent");
    const all = await deliveries(n);
    assert.equal(all[`${id(cleo)} sms`].status, "captured");
    assert.equal(all[`${id(ana)} sms`], undefined, "she has opened it");
    assert.deepEqual(counts(await sent("push")), [3, 3, 0]);
  });

  await step("cancel", async () => {
    for (const title of ["own clock", "night"]) {
      await notifications.update((await sent(title)).id, { action: "cancel" });
      await until("nothing waits", async () => { const n = await sent(title); return n.cancelled === 1 && n.pending === 0; });
    }
  });
}
