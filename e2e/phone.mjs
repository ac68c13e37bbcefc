// What an app does with the stock SDK to sign people in by phone, on a machine
// where nothing is set up: the text is kept in notification_deliveries.
//
//   node phone.mjs BASE SUPERUSER PASSWORD
import { createRequire } from "node:module";
import assert from "node:assert/strict";

const require = createRequire(new URL("../web/package.json", import.meta.url));
const { default: PocketBase } = await import(require.resolve("pocketbase"));

const [base, email, password] = process.argv.slice(2);
const root = new PocketBase(base);
await root.collection("_superusers").authWithPassword(email, password);

const step = async (name, fn) => {
  await fn();
  console.log(`ok    ${name}`);
};
const refused = async (status, promise) => {
  const error = await promise.then(() => assert.fail("it was not refused"), (e) => e);
  assert.equal(error.status, status, error.stack);
  return error.response;
};
const post = (pb, path, body) => pb.send(`/api/collections/users/${path}`, { method: "POST", body, requestKey: null });
// The text is there a moment after the answer.
const lastText = async () => {
  for (const end = Date.now() + 120_000; Date.now() < end;) {
    const { items } = await root.collection("notification_deliveries").getList(1, 1, { sort: "-@rowid", filter: "channel = 'sms'", requestKey: null });
    if (items[0] && !["pending", "sending"].includes(items[0].status)) return items[0];
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail("no text came");
};
const code = async () => (await lastText()).rendered.body.match(/\d{4,}/)[0];

await root.collections.update("users", { otp: { enabled: true, duration: 180, length: 6 } });
const phone = "+447700900101";
const ana = await root.collection("users").create({ email: "ana@example.com", password: "first-password", passwordConfirm: "first-password", phone });
const web = new PocketBase(base);
await web.collection("users").authWithPassword("ana@example.com", "first-password");
const app = new PocketBase(base);

await step("sign in", async () => {
  const { otpId } = await post(app, "request-phone-otp", { phone: "+44 7700 900101" });
  const { record } = await app.collection("users").authWithOTP(otpId, await code());
  assert.equal(record.id, ana.id);
  assert.equal(record.phone, phone);
  assert.equal(record.phoneVerified, true);
  assert.ok(app.authStore.isValid);
  await app.collection("users").authRefresh();
});

await step("the first proof ends what was there before", async () => {
  await refused(401, web.collection("users").authRefresh());
  await refused(400, web.collection("users").authWithPassword("ana@example.com", "first-password"));
});

await step("an unknown number looks the same", async () => {
  const { otpId } = await post(app, "request-phone-otp", { phone: "+447700900999" });
  assert.match(otpId, /^[a-z0-9]{15}$/);
  assert.equal((await lastText()).reason, "no_account");
  const answer = await refused(400, new PocketBase(base).collection("users").authWithOTP(otpId, "123456"));
  assert.equal(answer.message, "Invalid or expired OTP.");
});

await step("change the number", async () => {
  const { otpId } = await post(app, "request-phone-verification", { phone: "+447700900202" });
  const record = await post(app, "confirm-phone-verification", { otpId, code: await code() });
  assert.equal(record.phone, "+447700900202");
  app.authStore.save(app.authStore.token, record);
  assert.equal((await app.collection("users").authRefresh()).record.phone, "+447700900202");
});

await step("sign up", async () => {
  const [row] = await root.collection("phone_sign_in").getFullList();
  await root.collection("phone_sign_in").update(row.id, { phoneSignUp: true });
  const pb = new PocketBase(base);
  const { otpId } = await post(pb, "request-phone-otp", { phone: "+447700900303" });
  const { record } = await pb.collection("users").authWithOTP(otpId, await code());
  assert.equal(record.phone, "+447700900303");
  await pb.collection("users").update(record.id, { name: "Ben" });
});
