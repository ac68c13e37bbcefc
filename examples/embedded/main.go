// Command embedded is somebody's own PocketBase app that takes Groundwork in:
// one line in main, and everything else stays theirs.
//
//	go run ./examples/embedded serve
package main

import (
	"log"
	"net/http"

	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/hooks"
)

func main() {
	app := pocketbase.New()

	// Before Start. The zero value is a local installation, where every message is
	// kept to look at instead of sent.
	hooks.MustRegister(app, hooks.Config{})

	// The app's own routes and hooks, as before.
	app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		e.Router.GET("/hello/{name}", func(e *core.RequestEvent) error {
			return e.String(http.StatusOK, "Hello "+e.Request.PathValue("name"))
		})
		return e.Next()
	})

	if err := app.Start(); err != nil {
		log.Fatal(err)
	}
}
