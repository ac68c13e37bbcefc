// Starts the parts of the extension. PocketBase puts this file, with those of other
// extensions, into the body of one async function: it can import nothing by a
// statement, and the dashboard waits until it is through.
const parts = ["people", "messages", "schedules"];

await Promise.all(parts.map(async (part) => {
  try {
    const { start } = await import(new URL(app.pb.buildURL(`/_/extensions/groundwork/${part}/index.js`), document.baseURI).href);
    start();
  } catch (error) {
    console.error(`Groundwork: this part of the dashboard did not start: ${part}`, error);
  }
}));
