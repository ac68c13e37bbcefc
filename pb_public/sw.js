// Shows the messages that the server pushes to this browser; it runs while the page
// is closed. What it gets is described in docs/reference.md.

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("push", (event) => event.waitUntil(receive(event.data)));

async function receive(data) {
  let message = {};
  try {
    message = data?.json() ?? {};
  } catch {
    message = { body: data.text() };
  }
  for (const page of await self.clients.matchAll({ type: "window" })) page.postMessage({ push: message });
  if (Number.isInteger(message.badge)) {
    await (message.badge ? self.navigator.setAppBadge?.(message.badge) : self.navigator.clearAppBadge?.())?.catch(() => {});
  }
  // Browsers allow few messages that show nothing, and then show one of their own.
  if (message.silent) return;
  await self.registration.showNotification(message.title || message.body || "A new message", {
    body: message.title ? message.body : undefined,
    image: message.image,
    tag: message.tag, // one with the same tag is replaced
    silent: message.sound === "none" || undefined,
    actions: message.actions,
    data: { link: message.link, notification: message.notification, data: message.data, openToken: message.openToken },
  });
}

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(Promise.all([open(event.notification.data?.link), opened(event.notification.data?.openToken)]));
});

// opened tells the server that the message was opened; nobody has to be signed in.
async function opened(token) {
  if (!token) return;
  const headers = { "Content-Type": "application/json" };
  await fetch(new URL("/v1/api/notifications/opened", self.registration.scope), { method: "POST", headers, body: JSON.stringify({ token }), keepalive: true }).catch(() => {});
}

// open shows the link, or the page that is open already.
async function open(link) {
  const target = address(link);
  const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  const page = pages.find((p) => p.url === target) ?? (link ? undefined : pages[0]);
  return page ? page.focus() : self.clients.openWindow(target);
}

// address is where a link leads; anything but a web address is the page itself.
function address(link) {
  const home = self.registration.scope;
  try {
    const url = new URL(link || home, home);
    return /^https?:$/.test(url.protocol) ? url.href : home;
  } catch {
    return home;
  }
}
