// Web Push for a page made with the stock PocketBase SDK: one button that asks the
// browser, subscribes with the server's key, and creates a device. sw.js shows the
// messages.

const $ = (id) => document.getElementById(id);
const remembered = "pushDevice"; // the device's id, so that signing out can delete it

// pushButton runs the button. show() is for a person who has signed in; forget()
// ends it for this browser, before the sign-in is dropped.
export function pushButton(pb, notice) {
  const on = $("push-on"), off = $("push-off"), state = $("push-state");

  const say = (text, subscribed, possible = true) => {
    state.textContent = text;
    on.hidden = subscribed || !possible;
    off.hidden = !subscribed;
  };

  const show = async () => {
    const missing = whatIsMissing();
    if (missing) return say(missing, false, false);
    if (Notification.permission === "denied") return say(blocked, false, false);
    const subscription = await current();
    if (!subscription || Notification.permission !== "granted") return say("Messages can reach you while this page is closed.", false);
    try {
      // At every start: the server may have lost the device, and the browser may
      // have replaced the subscription.
      await register(await within(30_000, subscribe()));
      say(works, true);
    } catch (e) {
      say(inWords(e), false);
    }
  };

  const subscribe = async () => {
    const { publicKey } = await pb.send("/api/notifications/webpush-key", { method: "GET" });
    const key = bytes(publicKey);
    // Once: browsers look for a newer one at every visit by themselves.
    if (!(await current.worker())) await navigator.serviceWorker.register("sw.js");
    const worker = await navigator.serviceWorker.ready;
    let subscription = await worker.pushManager.getSubscription();
    if (subscription && !same(subscription.options?.applicationServerKey, key)) {
      // Made for another key, which never changes: nothing would arrive.
      await subscription.unsubscribe();
      subscription = null;
    }
    return subscription ?? worker.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
  };

  // A device that is known already is not an error: it becomes the caller's.
  const register = async (subscription) => {
    const device = await pb.collection("devices").create({
      platform: "web",
      token: JSON.stringify(subscription),
      locale: navigator.language,
      timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
      appVersion: document.querySelector('meta[name="app-version"]').content,
    });
    localStorage.setItem(remembered, device.id);
  };

  const forget = async () => {
    if (whatIsMissing()) return;
    const device = localStorage.getItem(remembered);
    localStorage.removeItem(remembered);
    await within(3000, Promise.allSettled([
      // Either of the two is enough: who is unsubscribed is found out by the next push.
      device && pb.collection("devices").delete(device),
      current().then((subscription) => subscription?.unsubscribe()),
      current.worker().then((worker) => worker?.getNotifications()).then((shown) => shown?.forEach((n) => n.close())),
    ])).catch(() => {}); // nobody waits to be signed out
  };

  on.addEventListener("click", async () => {
    on.disabled = true;
    notice("");
    try {
      // First, while the click counts: some browsers ask only then.
      const permission = await Notification.requestPermission();
      if (permission === "denied") return say(blocked, false, false);
      if (permission !== "granted") return say("Nothing was changed: the browser was not given an answer.", false);
      state.textContent = "One moment: the browser asks its push service…";
      // A browser that cannot reach its push service may wait for ever.
      await register(await within(30_000, subscribe()));
      say(works, true);
    } catch (e) {
      say(inWords(e), false);
    } finally {
      on.disabled = false;
    }
  });

  off.addEventListener("click", async () => {
    off.disabled = true;
    await forget();
    off.disabled = false;
    say("This browser is not notified any more.", false);
  });

  return { show, forget };
}

const works = "This browser is notified, also while this page is closed.";
const blocked = "Notifications are blocked for this page. Allow them in the browser's settings for this site, then reload the page.";

// whatIsMissing says why there is no push here; empty when there is.
function whatIsMissing() {
  if (!window.isSecureContext) return "Browsers are notified over https only, and on the machine itself.";
  if ("serviceWorker" in navigator && "PushManager" in window && "Notification" in window) return "";
  if (navigator.standalone === false) return "On an iPhone or iPad, add this page to the Home Screen first and open it there.";
  return "This browser cannot be notified.";
}

const current = async () => (await current.worker())?.pushManager.getSubscription() ?? null;
current.worker = () => navigator.serviceWorker.getRegistration();

// within gives up on what takes too long.
function within(ms, promise) {
  return Promise.race([promise, new Promise((_, late) => setTimeout(() => late(new DOMException("too late", "AbortError")), ms))]);
}

function inWords(error) {
  if (error?.name === "AbortError" && !error.status) return "This browser could not reach its push service. Check the connection; some browsers have none, or have it switched off.";
  if (error?.name === "NotAllowedError") return blocked;
  if (error?.status) return Object.values(error.response?.data ?? {}).map((e) => e.message).join(" ") || error.message;
  return "The server did not answer. Is it still running?";
}

// bytes decodes base64url.
function bytes(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
}

function same(buffer, key) {
  const has = buffer && new Uint8Array(buffer);
  return Boolean(has) && has.length === key.length && has.every((byte, i) => byte === key[i]);
}
