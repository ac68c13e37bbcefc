package demo

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// Ids of the demo's collections, so that the demo is known by them when they have
// been renamed.
const (
	productsID        = "demo_products"
	ordersID          = "demo_orders"
	orderLinesID      = "demo_order_lines"
	recommendationsID = "demo_recommend"
)

// mine is the rule of what belongs to one person.
const mine = "user = @request.auth.id"

// What was bought, a row for each product of each order, the newest first. It is
// what a receipt lists, and the recommendations stand on it.
const orderLines = `SELECT
  (o.id || p.id) AS id, o.id AS purchase, o.buyer AS user, p.id AS product, p.name, p.price
FROM orders o
JOIN json_each(o.items) i
JOIN products p ON p.id = i.value
WHERE o.status != 'cancelled'
ORDER BY o.created DESC, p.name`

// Bought by people who bought what you bought, and not yet yours; what most of them
// bought first.
const recommendations = `SELECT
  (me.user || theirs.product) AS id, me.user AS user, theirs.product AS product, theirs.name, theirs.price,
  COUNT(DISTINCT theirs.user) AS buyers
FROM order_lines me
JOIN order_lines shared ON shared.product = me.product AND shared.user != me.user
JOIN order_lines theirs ON theirs.user = shared.user
WHERE me.user != '' AND theirs.user != ''
  AND theirs.product NOT IN (SELECT owned.product FROM order_lines owned WHERE owned.user = me.user)
GROUP BY me.user, theirs.product
ORDER BY buyers DESC, theirs.name`

func (s *shop) addCollections() error {
	anybody := types.Pointer("")

	// Everybody sees what can be bought; only superusers write it.
	products := core.NewBaseCollection("products", productsID)
	products.Fields.Add(
		&core.TextField{Name: "name", Required: true, Presentable: true, Max: 100, Help: "What the product is called in the shop and in messages."},
		&core.NumberField{Name: "price", Required: true, Min: types.Pointer(0.0), Help: "In euros."},
	)
	products.ListRule, products.ViewRule = anybody, anybody
	stamp(products)

	// People place orders of their own and see them; what becomes of an order is the
	// shop's to say. An order outlives the account of its buyer, without its name.
	orders := core.NewBaseCollection("orders", ordersID)
	orders.Fields.Add(
		&core.RelationField{Name: "buyer", CollectionId: s.users.Id, MaxSelect: 1, Help: "Who gets the messages about this order."},
		&core.RelationField{Name: "items", CollectionId: products.Id, MaxSelect: 20, Required: true, Help: "What was bought."},
		&core.SelectField{Name: "status", Values: []string{"placed", "packed", "shipped", "delivered", "cancelled"}, MaxSelect: 1, Required: true,
			Help: "Choose shipped, and the buyer is told."},
		&core.DateField{Name: "deliverAt", Help: "When it is to be delivered. The buyer is reminded an hour before."},
	)
	orders.ListRule, orders.ViewRule = types.Pointer("buyer = @request.auth.id"), types.Pointer("buyer = @request.auth.id")
	orders.CreateRule = types.Pointer(`@request.auth.id != "" && buyer = @request.auth.id && status = "placed"`)
	orders.AddIndex("idx_demo_orders_buyer", false, "buyer", "")
	stamp(orders)

	lines := core.NewViewCollection("order_lines", orderLinesID)
	lines.ViewQuery, lines.ListRule, lines.ViewRule = orderLines, types.Pointer(mine), types.Pointer(mine)

	recommended := core.NewViewCollection("recommendations", recommendationsID)
	recommended.ViewQuery, recommended.ListRule, recommended.ViewRule = recommendations, types.Pointer(mine), types.Pointer(mine)

	for _, c := range []*core.Collection{products, orders, lines, recommended} {
		if err := s.app.Save(c); err != nil {
			return fmt.Errorf("make the collection %s: %w", c.Name, err)
		}
	}
	return nil
}

// stamp adds when a record was made and changed.
func stamp(c *core.Collection) {
	c.Fields.Add(&core.AutodateField{Name: "created", OnCreate: true}, &core.AutodateField{Name: "updated", OnCreate: true, OnUpdate: true})
}
