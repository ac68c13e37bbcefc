// An owner without code in the demo's shop: the weekend's recommendations, a receipt
// and a reminder of their own. Real browser, mouse and keyboard only.
//
//   node shop.mjs BASE SETUP_LINK SHOTS ANAS_PASSWORD
import { join } from "node:path";
import assert from "node:assert/strict";
import { dashboard, launch } from "./dashboard.mjs";

const [base, setupLink, shots, anasPassword] = process.argv.slice(2);
const context = await launch();

const step = async (name, fn) => {
  const start = Date.now();
  try {
    await fn();
    console.log(`ok    ${name} (${Date.now() - start} ms)`);
  } catch (e) {
    for (const [i, p] of context.pages().entries()) await p.screenshot({ path: join(shots, `failed-${i}.png`) }).catch(() => {});
    console.error(`FAIL  ${name}\n${e.stack}`);
    await context.close();
    process.exit(1);
  }
};
const page = await context.newPage();
const admin = await context.newPage();

await dashboard.firstSuperuser(admin, setupLink);

await step("Ana signs in on the page", async () => {
  await page.bringToFront();
  await page.goto(base);
  await page.locator("#sign input[value=in]").check();
  await page.locator("#sign input[name=email]").fill("ana@example.com");
  await page.locator("#sign input[name=password]").fill(anasPassword);
  await page.locator("#sign button[type=submit]").click();
  await page.locator("#member").waitFor();
});

// The Saturday that is not over on anybody's clock, and that stays the same over midnight.
const saturday = new Date(Date.now() + 48 * 3600_000);
while (saturday.getUTCDay() !== 6) saturday.setUTCDate(saturday.getUTCDate() + 1);

await step("the weekend's recommendations are set for Saturday at nine on everybody's clock", async () => {
  await dashboard.open(admin, "notifications");
  await dashboard.newRecord(admin);
  await dashboard.pick(admin, "template", "weekend-recommendations");
  await dashboard.choose(admin, "channels", "email", "inbox");
  await dashboard.choose(admin, "audience", "everyone");
  await dashboard.field(admin, "sendAt").fill(`${saturday.toISOString().slice(0, 10)}T09:00:00`);
  await dashboard.toggle(admin, "localTime");
  await dashboard.choose(admin, "action", "send");
  assert.match(await dashboard.refused(admin, "Create", "confirmRecipients"), /enter 5 here/);
  await dashboard.field(admin, "confirmRecipients").fill("5");
  await dashboard.save(admin, "Create");
  const said = saturday.toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric", timeZone: "UTC" });
  await admin.getByText(`It goes out at 09:00 on ${said} on each person's own clock.`).first().waitFor();
  await admin.screenshot({ path: join(shots, "weekend.png") });
});

await step("the same again at once: Ana is told of the two things that she lacks", async () => {
  await dashboard.newRecord(admin);
  await dashboard.pick(admin, "template", "weekend-recommendations");
  await dashboard.choose(admin, "channels", "email", "inbox");
  await dashboard.choose(admin, "audience", "everyone");
  await dashboard.field(admin, "confirmRecipients").fill("5");
  await dashboard.choose(admin, "action", "send");
  await dashboard.save(admin, "Create");
  const message = page.locator("#inbox li", { hasText: "For your weekend, Ana" });
  await message.waitFor();
  const text = await message.innerText();
  assert.match(text, /Tea cups, 24 €\s+Honey, 9 €/);
  assert.equal(text.match(/€/g).length, 2, text);
  await page.screenshot({ path: join(shots, "recommended.png") });
});

await step("and Bo, who bought nothing, is not told of nothing", async () => {
  await dashboard.open(admin, "notification_deliveries");
  const row = admin.locator("tr").filter({ hasText: "b…@example.com" }).filter({ hasText: "email" });
  await dashboard.listed(admin, row.filter({ hasText: "nothing_to_say" })); // it can come after Ana's
  await row.getByText("nothing_to_say").waitFor();
  await row.getByText("skipped").waitFor();
});

await step("a receipt of the owner's own is written", async () => {
  await dashboard.open(admin, "notification_templates");
  await dashboard.newRecord(admin);
  await dashboard.field(admin, "key").fill("thanks");
  await dashboard.field(admin, "dataFrom").fill("order_line");
  await dashboard.field(admin, "title").fill("Order {{ record.id }}");
  await dashboard.field(admin, "body").fill("Thank you, {{ user.name }}: {% for line in rows %}{% if line.purchase == record.id %}{{ line.name }} {% endif %}{% endfor %}");
  assert.match(await dashboard.refused(admin, "Create", "dataFrom"), /There is no collection or view "order_line"/);
  await dashboard.field(admin, "dataFrom").fill("order_lines");
  await dashboard.save(admin, "Create");
});

// switchOff switches a trigger of the demo off.
const switchOff = async (name) => {
  await dashboard.edit(admin, name);
  await dashboard.toggle(admin, "enabled");
  await dashboard.save(admin, "Save changes");
};

await step("the demo's receipt and reminder are switched off, and the owner's own are made", async () => {
  await dashboard.open(admin, "notification_triggers");
  await switchOff("Receipt");
  await switchOff("Reminder");

  await dashboard.newRecord(admin);
  await dashboard.field(admin, "name").fill("Thanks");
  await dashboard.field(admin, "collection").fill("orders");
  await dashboard.choose(admin, "event", "created");
  await dashboard.field(admin, "condition").fill('status = "plaecd');
  await dashboard.pick(admin, "template", "thanks");
  await dashboard.choose(admin, "channels", "email", "inbox");
  await dashboard.field(admin, "recipient").fill("buyer");
  await dashboard.field(admin, "capPerHour").fill("20");
  await dashboard.toggle(admin, "enabled");
  assert.ok(await dashboard.refused(admin, "Create", "condition"));
  await dashboard.field(admin, "condition").fill('status = "placed"');
  await dashboard.save(admin, "Create");

  await dashboard.newRecord(admin);
  await dashboard.field(admin, "name").fill("Soon");
  await dashboard.field(admin, "collection").fill("orders");
  await dashboard.choose(admin, "event", "date");
  await dashboard.field(admin, "dateField").fill("deliverAt");
  await dashboard.field(admin, "offsetMinutes").fill("-60");
  await dashboard.pick(admin, "template", "delivery-reminder");
  await dashboard.choose(admin, "channels", "inbox");
  await dashboard.field(admin, "recipient").fill("buyer");
  await dashboard.toggle(admin, "enabled");
  await dashboard.save(admin, "Create");
  await admin.screenshot({ path: join(shots, "triggers.png") });
});

await step("an order is shipped, and then changed once more: Ana is told", async () => {
  await dashboard.open(admin, "orders");
  for (const [from, field, value] of [["placed", "status", "shipped"], ["shipped", "deliverAt", "2030-01-01T09:00:00"]]) {
    await dashboard.edit(admin, from);
    if (field === "status") await dashboard.choose(admin, field, value);
    else await dashboard.field(admin, field).fill(value);
    await dashboard.save(admin, "Save changes");
    await page.locator("#inbox li", { hasText: "Your order is on its way" }).first().waitFor();
  }
});

await context.close();
