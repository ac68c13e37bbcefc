// A product owner's first hour, in a real browser: the setup link, the page at
// the root address, a message written in the dashboard, the welcome switched on.
// Mouse and keyboard only; the stock SDK only through the page itself.
//
//   node first_hour.mjs BASE SETUP_LINK SHOTS BINARY DATA_FOLDER FREE_ADDRESS
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import assert from "node:assert/strict";
import { axeFaults, dashboard, launch, password, signUp } from "./dashboard.mjs";

const [base, setupLink, shots, binary, dataFolder, freeAddress] = process.argv.slice(2);
const context = await launch();
let second;

const step = async (name, fn) => {
  const start = Date.now();
  try {
    await fn();
    console.log(`ok    ${name} (${Date.now() - start} ms)`);
  } catch (e) {
    for (const [i, p] of context.pages().entries()) await p.screenshot({ path: join(shots, `failed-${i}.png`) }).catch(() => {});
    console.error(`FAIL  ${name}\n${e.stack}`);
    second?.kill("SIGKILL");
    await context.close();
    process.exit(1);
  }
};
const shot = (p, name) => p.screenshot({ path: join(shots, name) });

const page = await context.newPage();
const admin = await context.newPage();

await step("the setup link makes the first superuser", () => dashboard.firstSuperuser(admin, setupLink));

await step("somebody signs up on the page with the keyboard, after two mistakes", async () => {
  await page.bringToFront();
  await page.goto(base);
  await page.locator("#sign input[name=name]").waitFor(); // what is hidden takes no focus
  await page.locator("#sign input[name=name]").focus();
  await page.keyboard.type("Ana");
  await page.keyboard.press("Enter");
  await page.getByText("Enter a password.").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.name), "email", "the first wrong field has the focus");
  assert.deepEqual(await axeFaults(page), []);
  await page.keyboard.type("ana@example.com");
  await page.keyboard.press("Tab");
  await page.keyboard.type("short");
  await page.keyboard.press("Enter");
  await page.getByText("at least 8 characters.", { exact: false }).first().waitFor();
  await page.keyboard.press("Control+a");
  await page.keyboard.type(password);
  await page.keyboard.press("Enter");
  await page.locator("#member").waitFor();
  await page.locator("#version", { hasText: "up to date" }).waitFor();
});

await step("a field of the owner's own and another order break nothing", async () => {
  await dashboard.open(admin, "notifications");
  await dashboard.addField(admin, "campaign");
});

await step("a message written in the dashboard arrives by realtime", async () => {
  await dashboard.newRecord(admin);
  await dashboard.field(admin, "title").fill("Hello {{ user.name }}");
  await dashboard.field(admin, "body").fill("We are open.");
  await dashboard.field(admin, "campaign").fill("autumn");
  await dashboard.choose(admin, "channels", "email", "inbox");
  await dashboard.choose(admin, "audience", "everyone");
  await dashboard.choose(admin, "action", "send");
  assert.match(await dashboard.refused(admin, "Create", "confirmRecipients"), /enter 1 here/);
  await dashboard.choose(admin, "audience", "users");
  await dashboard.pick(admin, "users", "Ana");
  await dashboard.field(admin, "title").fill("Hello {{ user.nmae }}");
  assert.match(await dashboard.refused(admin, "Create", "title"), /There is no "user\.nmae"\. Check the spelling/);
  await dashboard.field(admin, "title").fill("Hello {{ user.name }}");
  await shot(admin, "compose.png");
  await dashboard.save(admin, "Create");
  await page.locator("#inbox li", { hasText: "Hello Ana" }).waitFor();
  await shot(page, "inbox.png");
});

await step("a date is taken as it is picked, a past one is refused in words, and what waits can be cancelled", async () => {
  await dashboard.open(admin, "notifications");
  await dashboard.newRecord(admin);
  await dashboard.field(admin, "title").fill("Happy new year");
  await dashboard.choose(admin, "channels", "inbox");
  await dashboard.choose(admin, "audience", "filter");
  await dashboard.field(admin, "filter").fill('name = "Ana"');
  await dashboard.field(admin, "sendAt").fill("2099-01-01T00:00:00");
  await dashboard.field(admin, "expiresAt").fill("2020-01-01T00:00:00");
  await dashboard.choose(admin, "action", "send");
  const toast = admin.locator(".toast", { hasText: /in the future/ }).first().innerText(); // it is there for some seconds only
  const sentence = await dashboard.refused(admin, "Create", "expiresAt");
  assert.match(sentence, /in the future/);
  assert.ok((await toast).includes(sentence), await toast);
  await dashboard.field(admin, "expiresAt").fill("2099-01-02T00:00:00");
  await dashboard.save(admin, "Create");
  for (const [action, status] of [["pause", "paused"], ["resume", "scheduled"], ["cancel", "cancelled"]]) {
    await dashboard.edit(admin, "Happy new year");
    await dashboard.choose(admin, "action", action);
    await dashboard.save(admin, "Save changes");
    await admin.locator("tr").filter({ hasText: "Happy new year" }).getByText(status, { exact: true }).waitFor();
  }
});

await step("the captured e-mail can be read in the dashboard", async () => {
  await dashboard.open(admin, "notification_deliveries");
  await shot(admin, "deliveries.png");
  await dashboard.listed(admin, admin.locator("tr").filter({ hasText: "captured" }));
  await dashboard.edit(admin, "captured");
  const rendered = admin.locator(".record-field-input").filter({ hasText: /^\s*rendered/ }).last();
  await rendered.getByText("Hello Ana").first().scrollIntoViewIfNeeded();
  await shot(admin, "delivery.png");
  await admin.getByRole("button", { name: "Close", exact: true }).last().click();
});

await step("the welcome's text is written and its trigger switched on, and it reaches who signs up next", async () => {
  await dashboard.open(admin, "notification_templates");
  await dashboard.edit(admin, "welcome");
  await dashboard.field(admin, "title").fill("Welcome aboard, {{ user.nmae }}");
  assert.match(await dashboard.refused(admin, "Save changes", "title"), /There is no "user\.nmae"\. Check the spelling/);
  await dashboard.field(admin, "title").fill("Welcome aboard, {{ user.name }}");
  await dashboard.field(admin, "emailHtml").fill("<p>Good to see you, <b>{{ user.name }}</b>.</p>");
  await dashboard.save(admin, "Save changes");
  await dashboard.open(admin, "notification_triggers");
  await dashboard.edit(admin, "Welcome");
  await dashboard.toggle(admin, "enabled");
  await dashboard.save(admin, "Save changes");

  await page.bringToFront();
  await page.locator("#out").click();
  await signUp(page, "Bo");
  await page.locator("#inbox li", { hasText: "Welcome aboard, Bo" }).waitFor();
  await shot(page, "welcome.png");
  await dashboard.open(admin, "notification_deliveries");
  await dashboard.listed(admin, admin.locator("tr").filter({ hasText: /email\s*b…@example\.com/ }).filter({ hasText: "captured" })); // a moment after the inbox
  await dashboard.edit(admin, /email\s*b…@example\.com/);
  await admin.locator(".record-field-input").filter({ hasText: /^\s*rendered/ }).last().getByText("Good to see you, <b>Bo</b>").first().waitFor();
  await admin.getByRole("button", { name: "Close", exact: true }).last().click();
});

// hardUpdate is what an app at version 1.0.0 is told by a process.
const hardUpdate = async (address) => (await (await fetch(`${address}/api/version-check?platform=web&version=1.0.0`)).json()).hard_update;

await step("the minimum version, raised in the dashboard, counts at the next call, in a second process too", async () => {
  await dashboard.open(admin, "app_versions");
  await dashboard.newRecord(admin);
  await dashboard.choose(admin, "platform", "web");
  await dashboard.field(admin, "latest").fill("3.0.0");
  await dashboard.field(admin, "minimum").fill("1.0.0");
  await dashboard.field(admin, "message").fill("Please take the new one.");
  await dashboard.toggle(admin, "enabled");
  await dashboard.save(admin, "Create");

  const other = await startSecond();
  assert.deepEqual([await hardUpdate(base), await hardUpdate(other)], [false, false]);
  await dashboard.edit(admin, "3.0.0");
  await dashboard.field(admin, "minimum").fill("2.0.0");
  await dashboard.save(admin, "Save changes");
  assert.deepEqual([await hardUpdate(base), await hardUpdate(other)], [true, true]);
  second.kill("SIGTERM");

  await page.reload();
  await page.locator('#version[data-state="hard"]').waitFor();
  await page.locator("#update", { hasText: "An update is required. Please take the new one." }).waitFor();
});

await step("the page has no accessibility faults that axe knows, light, dark and on a phone", async () => {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    assert.deepEqual(await axeFaults(page), []);
  }
  await page.setViewportSize({ width: 320, height: 640 });
  await page.waitForFunction(() => innerWidth === 320);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 320, "nothing to scroll sideways");
  await shot(page, "phone.png");
});

await context.close();

// startSecond serves the same data folder from another process and returns its
// address.
async function startSecond() {
  second = spawn(binary, ["serve", "--http", freeAddress, "--dir", dataFolder], { cwd: dirname(dataFolder), env: { HOME: dirname(dataFolder) }, stdio: "ignore" });
  const address = `http://${freeAddress}`;
  for (const end = Date.now() + 120_000; Date.now() < end; await after(20)) {
    if ((await fetch(`${address}/api/health`).catch(() => ({}))).ok) return address;
  }
  throw new Error("the second process does not answer");
}
