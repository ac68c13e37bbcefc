// The results of jobs for their owners, through the stock SDK, and the job monitor in
// a real browser.
//
//   node jobs.mjs BASE SUPERUSER_EMAIL PASSWORD [FOLDER_FOR_PICTURES]
import { createRequire } from "node:module";
import assert from "node:assert/strict";
import { axeFaults, launch, password } from "./dashboard.mjs";

const require = createRequire(new URL("../web/package.json", import.meta.url));
const { default: PocketBase } = await import(require.resolve("pocketbase"));
const { EventSource } = await import(require.resolve("eventsource")).catch(() => ({}));
if (EventSource) globalThis.EventSource = EventSource;
const [base, rootEmail, rootPassword, pictures] = process.argv.slice(2);

const step = async (name, fn) => {
  const start = Date.now();
  await fn();
  console.log(`ok    ${name} (${Date.now() - start} ms)`);
};
const until = async (what, fn) => {
  for (const end = Date.now() + 120_000; Date.now() < end; await new Promise((r) => setTimeout(r, 50))) {
    const got = await fn();
    if (got) return got;
  }
  throw new Error(`it took too long: ${what}`);
};

const root = new PocketBase(base), ana = new PocketBase(base), bo = new PocketBase(base), guest = new PocketBase(base);
await root.collection("_superusers").authWithPassword(rootEmail, rootPassword);
for (const [client, name] of [[ana, "ana"], [bo, "bo"]]) {
  await client.collection("users").create({ email: `${name}@example.com`, password, passwordConfirm: password });
  await client.collection("users").authWithPassword(`${name}@example.com`, password);
}
const enqueue = (client, kind, args, options) => client.send("/enqueue", { method: "POST", body: { kind, args, options } }).then((r) => r.id);
const job = (client, id) => client.send(`/api/jobs/${id}`, { requestKey: null });
const status = (promise) => promise.then(() => 200, (e) => e.status);
const ended = (id) => until(`the end of job ${id}`, () => job(root, id).then((j) => j.finishedAt && j, () => null));

await step("a result is its owner's", async () => {
  let told;
  const id = await enqueue(ana, "shop.price", { n: 14 });
  await ended(id);
  assert.deepEqual((await job(ana, id)).result, { price: 42 });
  assert.equal((await job(ana, id)).args, undefined);
  assert.equal(await status(job(bo, id)), 404);
  assert.equal(await status(job(guest, id)), 401);
  assert.equal(await status(job(ana, "a".repeat(15))), 404);
  const ids = [];
  for (let i = 0; i < 20; i++) ids.push(await enqueue(bo, "shop.price", { n: i }));
  const mine = await enqueue(ana, "shop.price", { n: 1 });
  assert.equal(new Set([id, mine, ...ids]).size, 22);
  for (const one of [id, mine]) assert.match(one, /^[a-z0-9]{15}$/);
});

await step("realtime tells its owner only", async () => {
  const heard = { ana: [], bo: [], guest: [] };
  const later = await enqueue(ana, "shop.price", { n: 5 }, { runAt: new Date(Date.now() + 3600_000).toISOString() });
  for (const [name, client] of [["ana", ana], ["bo", bo], ["guest", guest]]) await client.realtime.subscribe(`jobs/${later}`, (e) => heard[name].push(e));
  await until("the first word", () => heard.ana.length > 0);
  assert.equal(heard.ana[0].state, "scheduled");
  await root.send(`/api/jobs/${later}/retry`, { method: "POST" }); // at once instead
  await until("the result", () => heard.ana.some((e) => e.state === "completed"));
  assert.deepEqual(heard.ana.at(-1).result, { price: 15 });
  assert.deepEqual([heard.bo, heard.guest], [[], []]);
  for (const client of [ana, bo, guest]) await client.realtime.unsubscribe();
});

await step("only superusers see the monitor", async () => {
  for (const [method, path] of [["GET", ""], ["GET", "/queues"], ["POST", "/queues/bulk/pause"], ["POST", `/${"a".repeat(15)}/cancel`]]) {
    assert.equal(await status(guest.send(`/api/jobs${path}`, { method })), 401, path);
    assert.equal(await status(ana.send(`/api/jobs${path}`, { method })), 403, path);
  }
  assert.equal(await status(root.send("/api/jobs/queues/nosuch/pause", { method: "POST" })), 404);
  assert.equal(await status(root.send("/api/jobs?state=nosuch", {})), 400);
});

// What goes wrong in every way, side by side in one queue.
const broken = {
  throws: await enqueue(ana, "shop.throws", { password: "hunter2-of-ana" }, { maxAttempts: 1 }),
  unknown: await enqueue(ana, "shop.nobody.knows", { n: 1 }),
  large: await enqueue(ana, "shop.price", { n: 2, text: "x".repeat(1_000_000) }),
  again: await enqueue(ana, "shop.again", {}),
};

const context = await launch();
const p = await context.newPage();
const faults = [];
p.on("console", (message) => message.type() === "error" && faults.push(message.text()));
p.on("pageerror", (error) => faults.push(String(error)));
const picture = async (name) => {
  if (pictures) await p.screenshot({ path: `${pictures}/${name}.png` });
};
await p.goto(`${base}/_/`);
await p.locator("input[type=email]").fill(rootEmail);
await p.locator("input[type=password]").fill(rootPassword);
await p.getByRole("button", { name: /login/i }).first().click();
await p.waitForURL(/collections/);

// hang enqueues a job that never ends. It is stopped after a minute: it begins where it
// is looked at.
const hang = () => enqueue(ana, "shop.hangs", {}, { maxAttempts: 1 });
const state = (id, text) => row(id).locator(".label").getByText(text, { exact: true }).waitFor();
const row = (id) => p.locator(`[data-job="${id}"]`);
const dialog = p.getByRole("dialog");
const open = async (id) => {
  await row(id).click();
  await p.locator(`[data-job-detail="${id}"]`).waitFor();
};
const close = async () => {
  await dialog.getByRole("button", { name: "Close" }).click();
  await dialog.waitFor({ state: "detached" });
};

await step("each fault has a sentence", async () => {
  await p.getByRole("link", { name: "Jobs" }).click();
  await state(broken.throws, "given up");
  await state(broken.large, "done");
  const hangs = await hang();
  await state(hangs, "running");
  await state(broken.again, "cancelled");
  await picture("jobs");
  await root.send(`/api/jobs/${hangs}/cancel`, { method: "POST" });
  assert.deepEqual(await axeFaults(p, ".page-content"), []);
  await open(broken.throws);
  await dialog.getByText("out of ink").waitFor();
  const text = await dialog.innerText();
  assert.ok(!text.includes("hunter2") && !text.includes("abcdef123"), text);
  await picture("job");
  assert.deepEqual(await axeFaults(p, "[role=dialog]"), []);
  await close();
  await row(broken.unknown).locator("td").last().getByText("nobody").or(row(broken.unknown).getByText(/kind/)).first().waitFor();
});

await step("the keyboard keeps its place", async () => {
  const at = () => p.evaluate(() => document.activeElement.closest("[data-job], [data-queue]")?.outerHTML.slice(0, 60) ?? "");
  await row(broken.throws).focus();
  await p.evaluate(() => {
    window.lost = 0; // how often the keyboard was nowhere when something else could have its turn
    new MutationObserver(() => setTimeout(() => document.activeElement === document.body && window.lost++)).observe(document.querySelector(".page-content"), { childList: true, subtree: true });
  });
  const more = await enqueue(bo, "shop.price", { n: 1 });
  await row(more).waitFor(); // the list was made anew
  assert.ok((await at()).includes(broken.throws), "it keeps the focus");
  assert.equal(await p.evaluate(() => window.lost), 0, "no key falls in between");
  await p.keyboard.press("Enter");
  await dialog.getByText("out of ink").waitFor();
  await row(await enqueue(bo, "shop.price", { n: 1 })).waitFor();
  await p.keyboard.press("Escape");
  await until("the focus after the dialog", async () => (await at()).includes(broken.throws));
  await open(more);
  assert.doesNotMatch(await dialog.innerText(), /false|What went wrong/);
  await close();
});

await step("numbers keep their names on a narrow screen", async () => {
  await p.setViewportSize({ width: 400, height: 800 });
  await p.waitForFunction(() => innerWidth === 400);
  assert.equal(await p.locator('[data-queue="bulk"] td').nth(1).evaluate((el) => getComputedStyle(el, "::before").content), '"Waiting"');
  assert.equal(await p.evaluate(() => [...document.querySelectorAll(".page-content *")].filter((el) => el.getBoundingClientRect().right > innerWidth + 1).length), 0);
  await p.setViewportSize({ width: 1280, height: 860 });
});

await step("one that hangs is cancelled, one that failed is run again", async () => {
  const hangs = await hang();
  await state(hangs, "running");
  await open(hangs);
  await dialog.getByRole("button", { name: "Cancel this job" }).click();
  await close();
  await state(hangs, "cancelled");
  await open(broken.again);
  await dialog.getByText("there is no paper").waitFor();
  await dialog.getByRole("button", { name: "Run it again" }).click();
  await close();
  await state(broken.again, "done");
  assert.equal((await job(ana, broken.again)).result, "printed");
});

await step("jobs of one state and kind", async () => {
  await p.getByLabel("State").selectOption("discarded");
  await row(broken.large).waitFor({ state: "detached" });
  await row(broken.throws).waitFor();
  await p.getByLabel("State").selectOption("");
  await p.getByLabel("Kind").fill("shop.again");
  await p.keyboard.press("Enter");
  await row(broken.throws).waitFor({ state: "detached" });
  await row(broken.again).waitFor();
  await p.getByLabel("Kind").fill("");
  await p.keyboard.press("Enter");
});

await step("a queue is paused and goes on", async () => {
  await p.getByRole("button", { name: "Pause the queue bulk" }).click();
  await p.getByRole("button", { name: "Yes" }).click();
  await p.locator('[data-queue="bulk"]').getByText("paused").waitFor();
  let id;
  await until("a job that waits", async () => { // what takes the jobs hears of the pause a moment later
    id = await enqueue(ana, "shop.price", { n: 3 }, { queue: "bulk" });
    for (let i = 0; i < 2; i++) await ended(await enqueue(ana, "shop.price", { n: 4 }));
    return (await job(root, id)).state === "available";
  });
  await state(id, "waiting");
  await picture("paused");
  await p.getByRole("button", { name: "Resume the queue bulk" }).click();
  await state(id, "done");
});

assert.deepEqual(faults, []);
await context.close();
