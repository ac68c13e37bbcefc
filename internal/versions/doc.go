// Package versions decides whether an installed app must, or should, be
// updated.
//
// It owns the order of app versions ([Parse], [Version.Compare]), the rules
// that an owner keeps in the app_versions collection, and the answer of
// GET /api/version-check ([Table.Check]).
//
// It does not own the route, the record hooks or the memory copy of the
// collection: package hooks binds those, with package livecache in between.
package versions
