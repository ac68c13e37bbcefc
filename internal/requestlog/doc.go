// Package requestlog gives every request an id and tells what happened to it,
// one JSON line each, without secrets.
//
// It owns the id's format, the line's shape and the way an id travels with a
// record to the hooks that save it. Package hooks binds it to PocketBase.
package requestlog
