// Package dashboard is what Groundwork adds to PocketBase's dashboard: plain
// ECMAScript modules, embedded as they are. There is no build step.
//
// It owns the files under ui and nothing else: hooks/dashboard.go serves them, and
// the routes that they call are in hooks too. Everybody can read the files, signed
// in or not: they hold no data and no secrets, and every route that they call asks
// who it is.
//
//	ui/main.js         starts the parts; PocketBase puts it into /_/extensions.js
//	ui/pocketbase.js   all that is known of PocketBase's dashboard, and nothing else knows it
//	ui/dialog.js       a dialog in the dashboard's looks, for keyboard and screen reader
//	ui/<part>/index.js one part each: exports start(), which adds its entries
//	ui/people/         export and erase in the panel of an account
//	ui/schedules/      when a schedule runs and ran, and "Run now", in its form
//
// A new part is a folder with an index.js, and its name in main.js. A page of its
// own registers its route in start; see [app.routes] in PocketBase's
// ui/src/router.js. A part that fails to start says so on the console and leaves
// the dashboard and the other parts alone.
//
// PocketBase calls its extension interface experimental: what changes with a new
// version of it is changed in ui/pocketbase.js, and e2e/people_test.go shows in a
// real browser whether it holds. The page's Content-Security-Policy allows scripts
// of this server only, none inline.
package dashboard
