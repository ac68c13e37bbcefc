// Package demo fills an empty data folder with a small shop, to look around in and
// to try messages with: products, orders, people in several time zones, the
// templates and triggers of a receipt, of "shipped" and of a reminder, and a list of
// recommendations for each person.
//
// It owns what is in that shop. It owns no behaviour: all of it is what an owner
// could make in the dashboard. Package commands calls it.
package demo
