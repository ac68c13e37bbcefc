// An owner looks at a message before it goes out, sends it to one address first, and
// sends again what failed; mouse and keyboard in a real browser.
//
//   node messages.mjs BASE SUPERUSER_EMAIL PASSWORD [FOLDER_FOR_PICTURES]
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
const ana = await root.collection("users").create({ email: "ana@example.com", name: "Ana <b>", password, passwordConfirm: password, locale: "fr" });
const template = await root.collection("notification_templates").create({
  key: "sale", title: "Hello {{ user.name }}", body: "Your code is {{ code }}.", emailSubject: "A code for {{ user.name }}",
  emailHtml: "<p id='greeting'>Dear {{ user.name }}, <script>parent.document.title='broken'</script>{{ code }}</p>",
  translations: { fr: { title: "Bonjour {{ user.name }}" } },
});
const draft = await root.collection("notifications").create({ template: template.id, variables: { code: "A1" }, channels: ["email", "inbox", "sms"], audience: "everyone" });

const context = await launch();
const p = await context.newPage();
const faults = [];
// The page stops the script in the e-mail, and says so; refusals are what is looked for.
p.on("console", (m) => m.type() === "error" && !/Blocked script execution|status of 400/.test(m.text()) && faults.push(m.text()));
p.on("pageerror", (error) => faults.push(String(error)));
const picture = async (name) => {
  if (pictures) await p.screenshot({ path: `${pictures}/${name}.png` });
};
await p.goto(`${base}/_/`);
await p.locator("input[type=email]").fill(rootEmail);
await p.locator("input[type=password]").fill(rootPassword);
await p.getByRole("button", { name: /login/i }).first().click();
await p.waitForURL(/collections/);

const dialog = (name) => p.getByRole("dialog", { name });
const choose = async (collection, text, entry) => {
  await dashboard.open(p, collection);
  await dashboard.edit(p, text);
  await dashboard.menu(p, entry);
};
const close = async (d) => {
  await d.getByRole("button", { name: "Close" }).click();
  await d.waitFor({ state: "detached" });
  await p.locator(".record-upsert-modal").getByRole("button", { name: "Close" }).click();
  await p.locator(".record-upsert-modal").waitFor({ state: "detached" });
};

await step("a notification is previewed", async () => {
  await choose("notifications", draft.id, "Preview");
  const d = dialog("Preview");
  await d.getByText("It reaches 1 person").waitFor();
  await d.getByText("Bonjour Ana <b>").waitFor();
  assert.equal(await d.frameLocator("iframe").locator("#greeting").innerText(), "Dear Ana <b>, A1");
  assert.notEqual(await p.title(), "broken");
  await d.getByLabel(/Show it for/).fill("nobody@example.com");
  await p.keyboard.press("Enter");
  await d.getByText("There is nobody with the e-mail address").waitFor();
  await d.getByLabel(/Show it for/).fill("ANA@example.com");
  await p.keyboard.press("Enter");
  await d.locator('[data-preview="email"]').waitFor();
  await picture("preview");
  // Whoever asks for somebody while another answer is on its way gets the last one.
  let held;
  await p.route("**/api/notifications/preview", (route) => (held ? route.continue() : (held = route)));
  await d.getByLabel(/Show it for/).fill(ana.id);
  await p.keyboard.press("Enter");
  await d.getByLabel(/Show it for/).fill("nobody@example.com");
  await p.keyboard.press("Enter");
  await d.getByText("There is nobody with the e-mail address").waitFor();
  const late = p.waitForResponse("**/api/notifications/preview");
  await held.continue();
  await (await late).finished();
  await p.unroute("**/api/notifications/preview");
  await d.getByText("There is nobody with the e-mail address").waitFor();
  assert.equal(await d.locator('[data-preview="email"]').count(), 0);
  await d.getByLabel(/Show it for/).fill("ANA@example.com");
  await p.keyboard.press("Enter");
  await d.locator('[data-preview="email"]').waitFor();
  assert.deepEqual(await axeFaults(p, "[role=dialog]"), []);
  await close(d);
});

await step("a template is previewed with its variables", async () => {
  await choose("notification_templates", "sale", "Preview");
  const d = dialog("Preview");
  await d.getByRole("alert").getByText("code").waitFor();
  await d.getByLabel(/Values of its own/).fill("{code: 1}");
  await d.getByRole("button", { name: "Show" }).click();
  await d.getByText("The variables are not JSON").waitFor();
  await d.getByLabel(/Values of its own/).fill('{"code": "Z9"}');
  await d.getByRole("button", { name: "Show" }).click();
  await d.locator('[data-preview="sms"]').getByText("Your code is Z9.").waitFor();
  await picture("template");
  await close(d);
  assert.equal((await root.collection("notification_deliveries").getList(1, 1, { filter: 'notification != ""' })).totalItems, 0);
});

await step("a test goes to one address", async () => {
  await choose("notifications", draft.id, "Send a test");
  const d = dialog("Send a test");
  await d.getByLabel(/A person/).fill("boss@example.com");
  await p.keyboard.press("Enter");
  await d.locator('[data-test="email"]').waitFor();
  await picture("test");
  assert.deepEqual(await axeFaults(p, "[role=dialog]"), []);
  await close(d);
  const rows = await root.collection("notification_deliveries").getFullList({ filter: 'notification != ""' }); // not the mail about a new sign-in
  assert.deepEqual(rows.map((r) => [r.test, r.channel, r.user]), [[true, "email", ""]]);
});

await step("what failed is sent again", async () => {
  await choose("notifications", draft.id, "Send the failed ones again");
  await p.getByRole("button", { name: "Yes" }).click();
  await p.locator(".toast").getByText(/.+/).first().waitFor(); // a draft has nothing that failed: the server's sentence
  await picture("again");
});

assert.deepEqual(faults, []);
await context.close();
