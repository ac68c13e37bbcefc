package main

import (
	"reflect"
	"slices"
	"sort"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/router"
)

// routesOf returns all routes of a router, such as "GET /api/health". The router
// has no list of them; its groups hold them in fields that are not exported, which
// may be read and not changed.
func routesOf(r *router.Router[*core.RequestEvent]) []string {
	var all []string
	collectRoutes(reflect.ValueOf(r.RouterGroup), "", &all)
	sort.Strings(all)
	return slices.Compact(all)
}

func collectRoutes(group reflect.Value, prefix string, all *[]string) {
	group = group.Elem()
	prefix += group.FieldByName("Prefix").String()
	children := group.FieldByName("children")
	for i := range children.Len() {
		child := children.Index(i).Elem() // out of the any: a pointer
		if child.Elem().FieldByName("children").IsValid() {
			collectRoutes(child, prefix, all)
			continue
		}
		method := child.Elem().FieldByName("Method").String()
		if method == "" {
			method = "ANY"
		}
		*all = append(*all, method+" "+prefix+child.Elem().FieldByName("Path").String())
	}
}
