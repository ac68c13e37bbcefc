// Takes docs/dashboard.png, the picture of the README: in an empty folder start
// the binary, and give its address and setup link.
//
//   node picture.mjs BASE SETUP_LINK ../docs/dashboard.png
import { dashboard, launch, signUp } from "./dashboard.mjs";

const [base, setupLink, file] = process.argv.slice(2);
const context = await launch();
const page = await context.newPage();
const admin = await context.newPage();
await dashboard.firstSuperuser(admin, setupLink);
await page.goto(base);
for (const name of ["Benoît", "Ana"]) {
  if (await page.locator("#member").isVisible()) await page.locator("#out").click();
  await signUp(page, name, `${name.normalize("NFD").replace(/[^a-z]/gi, "").toLowerCase()}@example.com`);
}
await dashboard.open(admin, "notifications");
await dashboard.newRecord(admin);
await dashboard.field(admin, "title").fill("We open on Saturday, {{ user.name }}");
await dashboard.field(admin, "body").fill("Coffee is on us until noon.");
await dashboard.choose(admin, "channels", "email", "sms", "inbox");
await dashboard.choose(admin, "audience", "everyone");
await dashboard.field(admin, "confirmRecipients").fill("2");
await dashboard.choose(admin, "action", "send");
await dashboard.save(admin, "Create");
await page.locator("#inbox li").waitFor();

// The deliveries with the columns that a person reads.
await admin.setViewportSize({ width: 1400, height: 640 });
await dashboard.open(admin, "notification_deliveries");
await dashboard.columns(admin, "channel", "address", "status", "explanation");
await admin.locator(".toast").waitFor({ state: "hidden" });
await admin.mouse.move(700, 600);
await admin.screenshot({ path: file });
await context.close();
