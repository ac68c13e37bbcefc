// Starts the parts of the extension. PocketBase puts this file, with those of other
// extensions, into the body of one async function: it can import nothing by a
// statement.
const parts = ["people", "messages", "schedules"];

// Pages of their own, with a link at the top.
const pages = [{ path: "#/jobs", label: "Jobs", icon: "ri-stack-line", part: "jobs" }];

const load = (part) => import(new URL(app.pb.buildURL(`/_/extensions/groundwork/${part}/index.js`), document.baseURI).href);

// The dashboard takes new pages only until this file waits for the first time.
for (const { path, label, icon, part } of pages) {
  app.routes.superuserOnly(path, async () => (await load(part)).page());
  app.store.headerLinks.splice(-1, 0, { href: path, label, icon }); // Settings stay last
}

await Promise.all(parts.map(async (part) => {
  try {
    (await load(part)).start();
  } catch (error) {
    console.error(`Groundwork: this part of the dashboard did not start: ${part}`, error);
  }
}));
