// A product owner makes a schedule in PocketBase's dashboard, watches it run at its
// minute, runs it by hand, edits it, switches it off and deletes it, in a real browser.
//
//   node schedules.mjs BASE SUPERUSER_EMAIL PASSWORD [FOLDER_FOR_PICTURES]
import { createRequire } from "node:module";
import assert from "node:assert/strict";
import { axeFaults, dashboard, launch, password } from "./dashboard.mjs";

const require = createRequire(new URL("../web/package.json", import.meta.url));
const { default: PocketBase } = await import(require.resolve("pocketbase"));
const [base, rootEmail, rootPassword, pictures] = process.argv.slice(2);

const step = async (name, fn) => {
  const start = Date.now();
  await fn();
  console.log(`ok    ${name} (${Date.now() - start} ms)`);
};

const root = new PocketBase(base);
await root.collection("_superusers").authWithPassword(rootEmail, rootPassword);
const options = { requestKey: null };
await root.collection("users").create({ email: "ana@example.com", name: "Ana", password, passwordConfirm: password, verified: true });
const client = new PocketBase(base);
await client.collection("users").authWithPassword("ana@example.com", password);
const schedule = (id) => root.collection("schedules").getOne(id, options);
const runs = (id) => root.collection("schedule_runs").getFullList({ filter: `schedule = "${id}"`, sort: "dueAt", ...options });
const until = async (what, fn, patience = 180_000) => {
  for (const end = Date.now() + patience; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 200))) {
    const found = await fn();
    if (found) return found;
  }
  throw new Error(`waited in vain: ${what}`);
};

const context = await launch();
const p = await context.newPage();
const broken = [];
p.on("console", (message) => message.type() === "error" && broken.push(`${message.text()} ${message.location().url}`));
p.on("pageerror", (error) => broken.push(String(error)));
const picture = async (name) => {
  if (pictures) await p.screenshot({ path: `${pictures}/${name}.png` });
};
const box = p.locator(".groundwork-schedule");
// early waits until the next minute, when it runs by itself, is some time off: two runs
// never go at a time, and one that is asked for then is refused.
const early = () => until("a time within the minute", async () => {
  const runs = await root.collection("schedule_runs").getFullList({ filter: `schedule = "${id}" && (status = "queued" || status = "running")`, ...options });
  return new Date().getSeconds() > 0 && new Date().getSeconds() < 35 && runs.length === 0;
});
const writeJSON = async (name, value) => {
  const editor = p.locator(".record-field-input.field-type-json").filter({ has: p.locator("label .txt", { hasText: new RegExp(`^${name}$`) }) }).locator(".editor-content");
  await editor.click();
  await until(`the keyboard in ${name}`, () => editor.evaluate((el) => el.contains(document.activeElement)));
  await p.keyboard.press("Control+a");
  await p.keyboard.insertText(JSON.stringify(value));
  await p.keyboard.press("Tab");
};

await p.goto(`${base}/_/`);
await p.locator("input[type=email]").fill(rootEmail);
await p.locator("input[type=password]").fill(rootPassword);
await p.getByRole("button", { name: /login/i }).first().click();
await p.waitForURL(/collections/);

await step("a cron line is explained while it is typed", async () => {
  await dashboard.open(p, "schedules");
  await dashboard.newRecord(p);
  await box.getByText("Write a cron line below").waitFor();
  assert.doesNotMatch(await box.innerText(), /false/);
  await dashboard.choose(p, "action", "backup");
  await box.getByText("What the payload may have").click();
  await box.getByText('"name": "nightly"').waitFor();
  await dashboard.field(p, "cron").fill("0 9 * * sat");
  await dashboard.field(p, "timezone").fill("Europe/Paris");
  await box.getByText("every Saturday at 09:00, Europe/Paris").waitFor();
  assert.equal(await box.locator("li").filter({ hasText: /^Saturday \d+ \w+ \d{4}, 09:00$/ }).count(), 5);
  await dashboard.field(p, "cron").fill("0 0 9 * * sat");
  await box.getByText("Seconds are not supported").waitFor();
  await dashboard.field(p, "cron").fill("0 9 * * sat");
  await dashboard.field(p, "timezone").fill("Europe/Atlantis");
  await box.getByText('There is no time zone "Europe/Atlantis"').waitFor();
  await dashboard.field(p, "timezone").fill("Europe/Paris");
  await dashboard.choose(p, "action", "notification");
  await box.getByText("maxRecipients").first().waitFor();
  assert.equal(await box.getByRole("button", { name: "Run now" }).count(), 0, "there is nothing to run yet");
  await picture("explained");
  assert.deepEqual(await axeFaults(p, ".groundwork-schedule"), []);
});

let id;
await step("a payload that could not be sent is refused in words", async () => {
  await dashboard.field(p, "name").fill("News");
  await writeJSON("payload", { title: "News of the minute", channels: ["inbox"], audience: "everyone" });
  await dashboard.toggle(p, "enabled");
  assert.match(await dashboard.refused(p, "Create", "payload"), /"maxRecipients": 5000/);
  await picture("refused");
  await writeJSON("payload", { title: "News of the minute", channels: ["inbox"], audience: "everyone", maxRecipients: 5 });
  await dashboard.field(p, "cron").fill("* * * * *");
  await box.getByText("every minute, Europe/Paris").waitFor();
  await dashboard.save(p, "Create");
  id = (await root.collection("schedules").getFirstListItem('name = "News"')).id;
});

// Three more that would run at the same minute.
const others = {};
for (const name of ["Edited", "Switched off", "Deleted"]) {
  const { id: _, ...copy } = await schedule(id);
  others[name] = (await root.collection("schedules").create({ ...copy, name })).id;
}
await step("edited, switched off and deleted ones do not run", async () => {
  await p.reload();
  await dashboard.open(p, "schedules");
  await dashboard.edit(p, "Edited");
  await dashboard.field(p, "cron").fill("0 9 * * sat");
  await box.getByText("every Saturday at 09:00, Europe/Paris").waitFor();
  await dashboard.save(p, "Save changes");
  await dashboard.edit(p, "Switched off");
  await dashboard.toggle(p, "enabled");
  await dashboard.save(p, "Save changes");
  await dashboard.edit(p, "Deleted");
  await dashboard.menu(p, "Delete");
  await p.getByRole("button", { name: "Delete record" }).click();
  await p.locator(".record-upsert-modal").waitFor({ state: "detached" });
});
const before = Object.fromEntries(await Promise.all(Object.entries(others).map(async ([name, other]) => [name, (await runs(other)).length])));

await step("it sends at its minute", async () => {
  const started = (await runs(id)).length;
  const run = await until("a run", async () => (await runs(id)).filter((r) => r.status === "ok")[started]);
  assert.match(run.output, /^Notification \w+ goes to 1 person\.$/);
  assert.match(run.dueAt, /:00\.000Z$/);
  const late = new Date(run.startedAt) - new Date(run.dueAt);
  assert.ok(late >= 0 && late < 30_000, `${late} ms after its minute`);
  await until("the message", async () => (await client.collection("notification_inbox").getFullList(options)).some((m) => m.title === "News of the minute"));
  for (const [name, other] of Object.entries(others)) assert.equal((await runs(other)).length, before[name], name);
});

await step("run now, and its history", async () => {
  await dashboard.edit(p, id);
  await box.getByRole("cell", { name: "due", exact: true }).first().waitFor();
  await early();
  await box.getByRole("button", { name: "Run now" }).click();
  const row = box.getByRole("row").filter({ hasText: "run now" }).filter({ hasText: "goes to 1 person" });
  await row.waitFor();
  await row.getByText("ok", { exact: true }).waitFor();
  await box.scrollIntoViewIfNeeded();
  await picture("history");
  assert.deepEqual(await axeFaults(p, ".groundwork-schedule"), []);
});

await step("a refusal of run now is said", async () => {
  await root.collection("users").create({ email: "bo@example.com", password, passwordConfirm: password });
  await root.collection("schedules").update(id, { payload: { title: "T", channels: ["inbox"], audience: "everyone", maxRecipients: 1 } });
  await early();
  await box.getByRole("button", { name: "Run now" }).click();
  await box.getByText('This would go to 2 people, and "maxRecipients" is 1').first().waitFor();
  await box.getByText("failed", { exact: true }).first().waitFor();
});

// Refusals are a 400 that the browser reports; nothing else may be.
assert.deepEqual(broken.filter((line) => !/status of 400.*(schedules\/explain|schedules\/records)/.test(line)), []);
await context.close();
