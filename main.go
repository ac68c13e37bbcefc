// Command groundwork is PocketBase with everything a new product's backend needs.
package main

import (
	"log"

	"github.com/pocketbase/pocketbase"

	"github.com/groundworkhq/groundwork/hooks"
)

func main() {
	app := pocketbase.New()
	hooks.MustRegister(app, hooks.Config{})
	if err := app.Start(); err != nil {
		log.Fatal(err)
	}
}
