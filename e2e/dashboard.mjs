// What the browser tests know of PocketBase's dashboard, and how they start a
// browser. Mouse and keyboard only.
import { createRequire } from "node:module";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const require = createRequire(new URL("../web/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export const password = "a-long-password";

// patience is how long is waited for what comes in a moment on a machine that is not
// busy, in milliseconds.
const patience = 120_000;

export async function launch() {
  const context = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), "browser-")), {
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    timeout: patience,
    viewport: { width: 1280, height: 860 },
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  context.setDefaultTimeout(patience);
  clickUntilHeard(context.pages()[0].locator("html"));
  return context;
}

// clickUntilHeard makes every click of a locator one that is heard. What moves, or is made
// anew, between the button's going down and up gets no click, and neither the browser nor
// its driver says so: a person sees that nothing happened, and clicks again.
function clickUntilHeard(locator) {
  Object.getPrototypeOf(locator).click = async function ({ timeout = patience, ...options } = {}) {
    const end = Date.now() + timeout, left = () => Math.max(1, end - Date.now());
    for (;;) {
      const element = await this.elementHandle({ timeout: left() });
      let failed;
      try {
        const ear = await element.evaluateHandle((el) => {
          const ear = { heard: false };
          el.addEventListener("click", () => (ear.heard = true), { capture: true, once: true });
          return ear;
        });
        await element.click({ ...options, timeout: left() }).catch((error) => (failed = error));
        if (await ear.evaluate((ear) => ear.heard)) return;
      } catch (error) {
        // A click that led to another page took the element along.
        if (!failed && /context was destroyed|navigation/.test(error.message)) return;
        failed ??= error;
      }
      if (failed && !/not attached/.test(failed.message) || Date.now() > end) throw failed ?? new Error(`no click on ${this} was heard`);
    }
  };
}

// axeFaults returns what axe finds on the page, or in a part of it, as lines to read.
export async function axeFaults(page, within = "html") {
  // What is faded in has little contrast until it is there.
  await page.waitForFunction(() => document.getAnimations().every((a) => a.playState !== "running" || a.effect.getComputedTiming().iterations === Infinity), null, { polling: 50 });
  await page.evaluate(axe); // a script tag would be refused by the page itself
  const found = await page.evaluate((within) => window.axe.run(within, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa"] }), within);
  return found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target).join(", ")}`);
}

export const signUp = async (page, name, email = `${name.toLowerCase()}@example.com`) => {
  await page.bringToFront();
  await page.locator("#sign input[name=name]").fill(name);
  await page.locator("#sign input[name=email]").fill(email);
  await page.locator("#sign input[name=password]").fill(password);
  await page.locator("#sign button[type=submit]").click();
  await page.locator("#member").waitFor();
};

// inMenu does something with an entry of an opened record's menu, which is opened for it.
const inMenu = async (p, entry, act) => {
  const panel = p.locator(".record-upsert-modal"), line = panel.locator(".dropdown-item:visible").filter({ hasText: entry });
  for (const end = Date.now() + patience; ;) {
    try {
      if (!(await panel.locator(".dropdown:popover-open").count())) await panel.getByRole("button", { name: "More options" }).click({ timeout: 3000 });
      return await act(line);
    } catch (error) {
      if (error.name !== "TimeoutError" || Date.now() > end) throw error;
    }
  }
};

export const dashboard = {
  firstSuperuser: async (p, link) => {
    await p.goto(link);
    await p.locator("input[type=email]").fill("owner@example.com");
    for (const field of await p.locator("input[type=password]").all()) await field.fill(password);
    await p.getByRole("button", { name: "Create superuser and login" }).click();
    await p.waitForURL(/collections/);
  },

  // In the sidebar; some collections are in its folded System group.
  open: async (p, collection) => {
    await p.bringToFront(); // Chromium can keep a click in a tab behind for long
    const entry = p.locator(`button.nav-item[title="${collection}"]`);
    await p.locator('button.nav-item[title="users"]').waitFor();
    if (!(await entry.isVisible())) await p.locator("summary").filter({ hasText: "System" }).click();
    await entry.click();
    await p.locator(`button.nav-item.active[title="${collection}"]`).waitFor();
    await p.locator(".page-header").getByText(collection, { exact: true }).waitFor();
  },

  // listed reads the list again until a row is in it: the list does not follow what the
  // server does by itself.
  listed: async (p, row) => {
    for (const end = Date.now() + patience; !(await row.count());) {
      if (Date.now() > end) throw new Error(`${row} was never in the list`);
      const answer = p.waitForResponse((r) => /\/records\?.*perPage=40/.test(r.url()));
      await p.getByRole("button", { name: "Refresh" }).click();
      await answer;
      await row.first().waitFor({ timeout: 1000 }).catch(() => {});
    }
  },
  newRecord: async (p) => {
    await p.getByRole("button", { name: "New record" }).first().click();
    await p.getByRole("button", { name: "Create", exact: true }).waitFor();
  },
  edit: async (p, text) => {
    await p.locator(".record-upsert-modal").first().waitFor({ state: "detached" }); // one that is closing keeps the next from opening
    await p.locator("tr").filter({ hasText: text }).first().click();
    await p.getByRole("button", { name: "Save changes", exact: true }).waitFor();
    // It shows the row of the list at first, and puts what it then reads over it.
    await p.waitForFunction(() => {
      const panel = [...document.querySelectorAll(".record-upsert-modal")].pop();
      return panel && !panel.querySelector("[inert]");
    });
  },
  // menu chooses an entry of an opened record's menu ("More options"), which is made
  // anew, and closes, whenever the panel has read something.
  menu: (p, entry) => inMenu(p, entry, (line) => line.click({ timeout: 3000 })),
  // opened opens that menu, and returns when an entry is to be seen in it.
  opened: (p, entry) => inMenu(p, entry, (line) => line.waitFor({ timeout: 3000 })),
  field: (p, name) => p.locator(`[name="${name}"]`).first(),
  // choose chooses values of a select field. What is explained above the fields can grow
  // between the button's going down and up, and the click is lost: it looks, and tries again.
  choose: async (p, name, ...values) => {
    const input = p.locator(".record-field-input.field-type-select").filter({ has: p.locator(`.input.select[name="${name}"]`) });
    const selected = input.locator("button.selected-container");
    for (const value of values) {
      const itself = new RegExp(`^\\s*${value}\\s*$`);
      const option = p.locator("button.dropdown-item.select-option:visible").filter({ hasText: itself });
      const chosen = selected.locator(".selected-item").filter({ hasText: itself });
      for (const end = Date.now() + patience; !(await chosen.count());) {
        if (Date.now() > end) throw new Error(`${value} could not be chosen for ${name}`);
        try {
          if (!(await option.count())) await selected.click({ timeout: 3000 });
          await option.first().click({ timeout: 3000 });
          await chosen.first().waitFor({ timeout: 3000 });
        } catch (error) {
          if (error.name !== "TimeoutError") throw error;
        }
      }
    }
    await p.keyboard.press("Escape").catch(() => {});
  },
  // toggle switches a bool field, and tries again for the same reason.
  toggle: async (p, name) => {
    const label = p.locator("label[for]:visible").filter({ hasText: new RegExp(`^\\s*${name}\\s*$`) }).last();
    const box = p.locator(`[id="${await label.getAttribute("for")}"]`), before = await box.isChecked();
    for (const end = Date.now() + patience; (await box.isChecked()) === before;) {
      if (Date.now() > end) throw new Error(`${name} could not be switched`);
      await label.click();
    }
  },

  // pick chooses a record for a relation field by the text it is shown with.
  pick: async (p, name, text) => {
    await p.locator(`output[name="${name}"]`).getByRole("button", { name: "Open records picker" }).click();
    // The list behind can say the same.
    const picker = p.locator(".records-picker-modal");
    await picker.locator(".records-picker-list .list-item").filter({ has: p.getByText(text, { exact: true }) }).locator(".state-icon").click(); // the name opens a preview
    await picker.getByText("Selected (1").waitFor();
    await picker.getByRole("button", { name: "Set selection" }).click();
    await picker.waitFor({ state: "detached" });
  },

  save: async (p, name) => {
    // The button can be out of sight for a moment before the answer is there. What the
    // page asks besides is none.
    const answer = p.waitForResponse((r) => r.request().method() !== "GET" && /\/api\/collections\/[^/]+(\/records(\/\w+)?)?$/.test(new URL(r.url()).pathname));
    await p.getByRole("button", { name, exact: true }).last().click();
    await answer;
    await p.getByRole("button", { name, exact: true }).last().waitFor({ state: "hidden" });
  },
  // refused saves and returns the sentence that stands at the field then.
  refused: async (p, name, field) => {
    await p.getByRole("button", { name, exact: true }).last().click();
    const sentence = p.locator(`.field-help.error[data-input-name="${field}"]`);
    await sentence.waitFor();
    return (await sentence.innerText()).trim();
  },

  // columns leaves the list with these (and the id, which stays).
  columns: async (p, ...names) => {
    await p.getByRole("button", { name: "Toggle columns" }).click();
    for (const label of await p.locator(".records-list-columns-dropdown label:visible").all()) {
      if (!names.includes((await label.innerText()).trim())) await label.click();
    }
    await p.keyboard.press("Escape");
    await p.locator(".records-list-columns-dropdown").waitFor({ state: "hidden" });
  },

  addField: async (p, name) => {
    await p.getByRole("button", { name: "Collection settings" }).click();
    await p.getByRole("button", { name: "New field" }).click();
    await p.locator(".dropdown-item:visible").filter({ hasText: /^\s*Plain text\s*$/ }).first().click();
    await p.locator(".modal input:focus").waitFor();
    await p.keyboard.press("Control+a");
    await p.keyboard.type(name);
    const handles = p.locator(".modal .sort-handle");
    await handles.nth(3).dragTo(handles.nth(1), { force: true }); // and another order
    await dashboard.save(p, "Save changes");
  },
};
