// What the buyers of the demo's shop do with the stock SDK.
//
//   node orders.mjs BASE PASSWORD place|flood|soon|ship [ROOT_EMAIL ROOT_PASSWORD ORDER]
import { createRequire } from "node:module";
import { setTimeout as after } from "node:timers/promises";
import assert from "node:assert/strict";

const require = createRequire(new URL("../web/package.json", import.meta.url));
const { default: PocketBase, ClientResponseError } = await import(require.resolve("pocketbase"));

const [base, password, part, rootEmail, rootPassword, order] = process.argv.slice(2);

// again repeats what a server that is being killed did not answer.
const again = async (fn) => {
  for (const end = Date.now() + 120_000; ;) {
    try {
      return await fn();
    } catch (e) {
      if (!(e instanceof ClientResponseError) || e.status !== 0 && e.status < 500 || Date.now() > end) throw e;
      await after(20);
    }
  }
};
const signIn = (name) => again(async () => {
  const pb = new PocketBase(base);
  pb.autoCancellation(false);
  await pb.collection("users").authWithPassword(`${name}@example.com`, password);
  return pb;
});
const letters = "abcdefghijklmnopqrstuvwxyz0123456789";
const newId = () => Array.from({ length: 15 }, () => letters[Math.floor(Math.random() * letters.length)]).join("");

// place orders green tea. The id is the client's, so that an order whose answer got
// lost is not placed twice.
const place = async (pb, tea, fields) => {
  const id = newId();
  await again(async () => {
    try {
      await pb.collection("orders").create({ id, buyer: pb.authStore.record.id, items: [tea], status: "placed", ...fields });
    } catch (e) {
      if (e.response?.data?.id?.code !== "validation_not_unique") throw e;
    }
  });
  console.log(id);
};
const teaOf = async (pb) => (await again(() => pb.collection("products").getFirstListItem('name = "Green tea"'))).id;

if (part === "place") { // three people, twelve orders each, one after the other
  await Promise.all(["ana", "cleo", "dan"].map(async (name) => {
    const pb = await signIn(name);
    const tea = await teaOf(pb);
    for (let i = 0; i < 12; i++) await place(pb, tea);
  }));
}

if (part === "flood") { // one client, thirty at once
  const pb = await signIn("bo");
  const tea = await teaOf(pb);
  await Promise.all(Array.from({ length: 30 }, () => place(pb, tea)));
}

if (part === "soon") { // due now, and in an hour
  const pb = await signIn("emma");
  const tea = await teaOf(pb);
  const minute = 60_000;
  for (const left of [59 * minute, 120 * minute]) await place(pb, tea, { deliverAt: new Date(Date.now() + left).toISOString() });
}

if (part === "ship") { // an order is updated, shipped, and updated again
  const root = new PocketBase(base);
  await root.collection("_superusers").authWithPassword(rootEmail, rootPassword);
  const tea = await teaOf(root);
  for (const change of [{ status: "packed" }, { status: "shipped" }, { status: "shipped", items: [tea, tea] }]) {
    await root.collection("orders").update(order, change);
  }
  // A refused one fires nothing.
  await assert.rejects(root.collection("orders").update(order, { status: "lost" }), (e) => e.status === 400);
}
