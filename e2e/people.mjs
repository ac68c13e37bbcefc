// A superuser exports a person and erases them in PocketBase's dashboard, ends a
// session and adds a limit, in a real browser.
//
//   node people.mjs BASE SUPERUSER_EMAIL PASSWORD [FOLDER_FOR_PICTURES]
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
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

// Two people with something of theirs, one whom a record of the application needs,
// and one of another collection of accounts.
const root = new PocketBase(base);
await root.collection("_superusers").authWithPassword(rootEmail, rootPassword);
const person = async (name, collection = "users") => {
  const r = await root.collection(collection).create({ email: `${name}@example.com`, password, passwordConfirm: password, verified: true });
  if (collection === "users") await root.collection("devices").create({ user: r.id, platform: "android", token: `token-of-${name}`, model: `Phone of ${name}` });
  return r;
};
await root.collections.create({ type: "auth", name: "staff" });
const ana = await person("ana"), bo = await person("bo"), cleo = await person("cleo"), dan = await person("dan", "staff");
await root.collections.create({ type: "base", name: "orders", fields: [
  { name: "buyer", type: "relation", collectionId: ana.collectionId, required: true, maxSelect: 1, cascadeDelete: false }] });
const order = await root.collection("orders").create({ buyer: cleo.id });
const gone = (id, collection = "users") => root.collection(collection).getOne(id).then(() => false, (e) => e.status === 404);
const receipts = () => root.collection("erasures").getFullList({ sort: "created" });

const context = await launch();
const p = await context.newPage();
const broken = [];
p.on("console", (message) => message.type() === "error" && broken.push(`${message.text()} ${message.location().url}`));
p.on("pageerror", (error) => broken.push(String(error)));
const picture = async (name) => {
  if (pictures) await p.screenshot({ path: `${pictures}/${name}.png` });
};
const open = async (collection, email) => {
  await dashboard.open(p, collection);
  await dashboard.edit(p, email);
};
const closePanel = async () => {
  const panel = p.locator(".record-upsert-modal");
  await panel.getByRole("button", { name: "Close" }).click();
  await panel.waitFor({ state: "detached" });
};
const entry = (name) => p.locator(".record-upsert-modal .dropdown-item:visible").filter({ hasText: name });
const dialog = (name) => p.getByRole("dialog", { name });
const downloaded = async (button) => {
  const [file] = await Promise.all([p.waitForEvent("download"), button.click()]);
  return { name: file.suggestedFilename(), content: readFileSync(await file.path()) };
};
// accessible refuses what axe finds in our dialog; the page around it is PocketBase's.
const accessible = async () => assert.deepEqual(await axeFaults(p, "[role=dialog]"), []);

await p.goto(`${base}/_/`);
await p.locator("input[type=email]").fill(rootEmail);
await p.locator("input[type=password]").fill(rootPassword);
await p.getByRole("button", { name: /login/i }).first().click();
await p.waitForURL(/collections/);

await step("export", async () => {
  await open("users", "ana@example.com");
  await dashboard.opened(p, "Export everything");
  await entry("Delete").waitFor();
  await p.waitForFunction(() => getComputedStyle(document.querySelector(".dropdown:popover-open")).opacity === "1");
  await picture("menu");
  await dashboard.menu(p, "Export everything");
  const d = dialog("Export everything about this person");
  await d.getByText("ana@example.com").waitFor();
  await accessible();
  await picture("export");
  const json = await downloaded(d.getByRole("button", { name: "Download JSON" }));
  assert.match(json.name, new RegExp(`^export-users-${ana.id}-\\d{4}-\\d\\d-\\d\\d\\.json$`));
  const content = JSON.parse(json.content);
  assert.equal(content.account.email, "ana@example.com");
  assert.ok(json.content.includes("Phone of ana"), "the device is in it");
  assert.ok(!json.content.includes("bo@example.com") && !json.content.includes("Phone of bo"), "nobody else is");
  await d.waitFor({ state: "hidden" });

  await dashboard.menu(p, "Export everything");
  const zip = await downloaded(dialog("Export everything about this person").getByRole("button", { name: "Download archive" }));
  assert.match(zip.name, /\.zip$/);
  assert.equal(zip.content.subarray(0, 2).toString(), "PK");
  assert.ok(zip.content.includes("export.json"));
  await dialog("Export everything about this person").waitFor({ state: "hidden" });
});

await step("erase asks for the person's address or id", async () => {
  await dashboard.menu(p, "Erase this person");
  const d = dialog("Erase this person");
  const erase = d.getByRole("button", { name: "Erase this person" });
  await d.getByText("ana@example.com").first().waitFor();
  await picture("erase");
  await accessible();
  await d.getByLabel("To go on, type the e-mail address or the id").waitFor();
  await p.waitForFunction(() => document.activeElement?.name === "typed"); // the field has the focus
  for (const typed of ["", "bo@example.com", bo.id, "ana@example", " "]) {
    await d.getByLabel("To go on").fill(typed);
    assert.ok(await erase.isDisabled(), typed);
    await p.keyboard.press("Enter");
  }
  await p.keyboard.press("Escape");
  await d.waitFor({ state: "hidden" });
  assert.equal(await gone(ana.id), false);
  assert.equal((await receipts()).length, 0);
});

await step("the keyboard stays in the dialog and comes back", async () => {
  await p.waitForFunction(() => document.activeElement?.title === "More options");
  await p.keyboard.press("Enter");
  await entry("Erase this person").waitFor();
  await entry("Erase this person").focus();
  await p.keyboard.press("Enter");
  const d = dialog("Erase this person");
  await d.getByText("ana@example.com").first().waitFor();
  await p.waitForFunction(() => document.activeElement?.name === "typed");
  await p.keyboard.type("ANA@example.com");
  const seen = new Set();
  for (let i = 0; i < 8; i++) {
    await p.keyboard.press("Tab");
    seen.add(await p.evaluate(() => document.activeElement.closest("[role=dialog]") ? document.activeElement.innerText || document.activeElement.name : "outside"));
  }
  assert.deepEqual([...seen].map((s) => s.trim()).sort(), ["Cancel", "Erase this person", "Export first (.zip)", "typed"]);
  await d.getByLabel("To go on").focus();
});

await step("erase", async () => {
  await p.keyboard.press("Enter");
  const d = dialog("This person is erased");
  await d.getByText(/Receipt:/).waitFor();
  assert.ok(await gone(ana.id), "the record is gone");
  const [receipt] = await receipts();
  assert.equal(receipt.origin, "superuser");
  assert.equal(receipt.collection, "users");
  await d.getByText(receipt.id).waitFor();
  await d.getByText(/All is deleted|Done: all of it/).waitFor();
  for (const row of ["users 1", "devices 1"]) await d.getByRole("row", { name: row }).waitFor();
  await picture("receipt");
  await accessible();
  const { id: _, ...told } = receipt; // three letters are easily in what is made by chance
  assert.ok(!JSON.stringify(told).includes("ana") && !JSON.stringify(receipt).includes(ana.id), "the receipt does not tell who it was");

  // Its panel is closed, it left the list, and the others are there.
  await p.locator(".record-upsert-modal").waitFor({ state: "detached" });
  await d.getByRole("button", { name: "Show the receipt" }).click();
  const shown = p.locator(".record-preview-modal");
  await shown.getByText("superuser", { exact: true }).waitFor();
  await picture("receipt-record");
  await p.waitForFunction(() => document.activeElement?.closest(".record-preview-modal")); // it is given the keyboard a moment later
  await p.keyboard.press("Escape");
  await shown.waitFor({ state: "detached" });
  await d.getByRole("button", { name: "Close" }).click();
  await d.waitFor({ state: "detached" });
  await dashboard.open(p, "erasures");
  await p.getByText(receipt.id).waitFor();
  await dashboard.open(p, "users");
  await p.getByText("bo@example.com").waitFor();
  assert.equal(await p.getByText("ana@example.com").count(), 0);
  assert.equal(await gone(bo.id), false);
});

await step("a refusal says why and deletes nothing", async () => {
  await open("users", "cleo@example.com");
  await dashboard.menu(p, "Erase this person");
  const d = dialog("Erase this person");
  await d.getByLabel("To go on").fill(cleo.id); // the id does as well
  await d.getByRole("button", { name: "Erase this person" }).click();
  await d.getByRole("alert").getByText("Delete or change these first: orders (1).").waitFor();
  await picture("refused");
  await accessible();
  await d.getByRole("button", { name: "Cancel" }).click();
  await d.waitFor({ state: "hidden" });
  assert.equal(await gone(cleo.id), false);
  await closePanel();
});

await step("every collection of accounts", async () => {
  await open("staff", "dan@example.com");
  await dashboard.menu(p, "Erase this person");
  const d = dialog("Erase this person");
  await d.getByLabel("To go on").fill("dan@example.com");
  await d.getByRole("button", { name: "Erase this person" }).click();
  await dialog("This person is erased").getByText(/Receipt:/).waitFor();
  await dialog("This person is erased").getByRole("button", { name: "Close" }).click();
  assert.ok(await gone(dan.id, "staff"));
  assert.equal((await receipts()).length, 2);
});

await step("a record that was copied and saved has them too", async () => {
  await open("users", "bo@example.com");
  await dashboard.menu(p, "Duplicate");
  await p.getByRole("button", { name: "Create", exact: true }).waitFor();
  await p.getByRole("button", { name: "More options" }).waitFor({ state: "detached" });
  await p.locator('.record-upsert-modal [name="email"]').fill("bo2@example.com");
  await p.locator('.record-upsert-modal [name="password"]').fill(password);
  await p.locator('.record-upsert-modal [name="passwordConfirm"]').fill(password);
  await p.keyboard.press("Control+s"); // save and stay
  await p.getByRole("button", { name: "Save changes", exact: true }).waitFor();
  await dashboard.menu(p, "Erase this person");
  const d = dialog("Erase this person");
  await d.getByText("bo2@example.com").first().waitFor();
  await p.keyboard.press("Escape");
  await d.waitFor({ state: "hidden" });
  await closePanel();
});

await step("superusers have neither", async () => {
  await open("_superusers", rootEmail);
  await dashboard.opened(p, "Copy JSON");
  assert.equal(await entry("Erase this person").count(), 0);
  await p.keyboard.press("Escape");
  await closePanel();
  await open("orders", order.id);
  await dashboard.opened(p, "Copy JSON");
  assert.equal(await entry("Export everything").count(), 0);
});

await step("a session is ended", async () => {
  await closePanel();
  const client = new PocketBase(base);
  await client.collection("users").authWithPassword("bo@example.com", password);
  const status = () => client.collection("users").getOne(bo.id, { requestKey: null }).then(() => 200, (e) => e.status);
  assert.equal(await status(), 200);
  await open("sessions", bo.id);
  await dashboard.menu(p, "Delete");
  await p.getByRole("button", { name: "Delete record" }).click();
  await p.locator(".record-upsert-modal").waitFor({ state: "detached" });
  assert.equal(await status(), 401);
});

await step("a limit is added and takes effect", async () => {
  const statuses = async () => {
    const all = [];
    for (let i = 0; i < 3; i++) all.push((await fetch(`${base}/api/health`)).status);
    return all;
  };
  await dashboard.open(p, "rate_limits");
  await dashboard.newRecord(p);
  for (const [name, value] of Object.entries({ name: "Health", limit: "2", windowSeconds: "600", route: "GET /api/health", keyBy: "each address" })) {
    await dashboard.field(p, name).fill(value);
  }
  assert.match(await dashboard.refused(p, "Create", "keyBy"), /Write ip, user/);
  await dashboard.field(p, "keyBy").fill("ip");
  await dashboard.save(p, "Create");
  assert.deepEqual(await statuses(), [200, 200, 200], "it is not switched on");
  await dashboard.edit(p, "GET /api/health");
  await dashboard.toggle(p, "enabled");
  await dashboard.save(p, "Save changes");
  assert.deepEqual(await statuses(), [200, 200, 429]);
});

// Refusals are a 400 that the browser reports; nothing else may be.
assert.deepEqual(broken.filter((line) => !/status of 400.*\/(erase|rate_limits\/records)$/.test(line)), []);
await context.close();
