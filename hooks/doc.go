// Package hooks binds Groundwork to a PocketBase app.
//
// It is the only place that registers PocketBase hooks, routes, middlewares and
// cron jobs, so that their order can be read in one place: [Register] is the
// table of contents. The logic lives in the domain packages; a file here
// translates between PocketBase events and them.
package hooks
