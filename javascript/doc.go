// Package javascript gives the JavaScript hooks of PocketBase (pb_hooks) what
// Groundwork adds: $notifications and $jobs.
//
// Its binary registers it by itself. An app of one's own does so with PocketBase's
// plugin:
//
//	jsvm.MustRegister(app, jsvm.Config{OnInit: javascript.Init(app)})
//
// The declarations for editors are written beside PocketBase's own, as
// groundwork.d.ts in the data folder ([WriteTypes]).
package javascript
