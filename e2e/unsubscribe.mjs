// Unsubscribes by the page behind the link of a promotional e-mail, with the keyboard
// alone.
//
//   node unsubscribe.mjs LINK STATE
//
// STATE prints what holds mail to the person back, by GET.
import assert from "node:assert/strict";
import { axeFaults, launch } from "./dashboard.mjs";

const [link, state] = process.argv.slice(2);
const held = async () => (await fetch(state)).text();
const context = await launch();
const page = await context.newPage();
const complaints = [];
page.on("console", (m) => m.type() === "error" && complaints.push(m.text()));
page.on("pageerror", (e) => complaints.push(String(e)));

const step = async (name, fn) => {
  await fn();
  assert.deepEqual(await axeFaults(page), [], name);
  console.log(`ok    ${name}`);
};
const heading = (text) => page.getByRole("heading", { level: 1, name: text, exact: true }).waitFor();
const focused = () => page.evaluate(() => document.activeElement.value || document.activeElement.textContent);
// Tab until something is reached, as a person does.
const tabTo = async (what) => {
  for (let i = 0; i < 8; i++) {
    await page.keyboard.press("Tab");
    if ((await focused()) === what) return;
  }
  assert.fail(`the keyboard never reaches ${what}`);
};

await step("the link changes nothing", async () => {
  await page.goto(link);
  await heading("Unsubscribe");
  assert.equal(await held(), "");
  assert.equal(await page.locator("button").evaluate((b) => getComputedStyle(b).backgroundColor), "rgb(26, 26, 26)", "its own style is let in");
  assert.deepEqual(await context.cookies(), []);
});

await step("only this kind", async () => {
  await tabTo("all");
  await page.keyboard.press("ArrowUp");
  assert.equal(await focused(), "category");
  await tabTo("Unsubscribe");
  await page.keyboard.press("Enter");
  await heading("You are unsubscribed");
  assert.match(await held(), /^email off/);
  assert.ok(await page.getByText("of the kind “Promotional").isVisible());
});

await step("undo", async () => {
  await tabTo("undo");
  await page.keyboard.press("Enter");
  await heading("You get these e-mails again");
  assert.equal(await held(), "");
});

await step("everything", async () => {
  await tabTo("all");
  await page.keyboard.press("Enter"); // as in any form
  await heading("You are unsubscribed");
  assert.equal(await held(), "email ana@example.com promotional unsubscribe");
  assert.ok(await page.getByText("an…@example.com").isVisible() || await page.getByText("a…@example.com").isVisible());
});

await step("the link again says how it is", async () => {
  await page.goto(link);
  await heading("You are unsubscribed");
});

await step("a link that was cut off", async () => {
  await page.goto(link.slice(0, -5));
  await heading("Unknown link");
});

assert.deepEqual(complaints.filter((c) => !c.includes("404")), [], "the browser has nothing to complain about");
await context.close();
