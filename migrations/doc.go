// Package migrations creates Groundwork's collections.
//
// Importing it registers the migrations with PocketBase. Each file is named
// <unix time>_<verb>_<noun>.go and holds literals only, so that an old
// migration never changes its meaning when the code around it does. It imports
// PocketBase and nothing of ours.
package migrations
