package page

import (
	"testing"

	"portwatcher/internal/model"
)

// The details of a port explain why it cannot be reached.
func TestExplain(t *testing.T) {
	f := newFake(t)
	web := f.add(container{Name: "web"})
	f.emit(event(model.Opened, web, "127.0.0.1", 80), event(model.Opened, web, "0.0.0.0", 81))
	p := newTab(t, 1280, 900)
	p.live(f, "/?container=web&port=80/tcp")
	p.click("#detail .why button")
	p.waitText("#detail .why", "No: other machines cannot reach it.")
	p.waitText("#detail .why .good", "container web runs")
	p.waitText("#detail .why .bad", "it listens on loopback only")
	p.waitText("#detail .why .remedy", "Let the program listen on 0.0.0.0.")
	p.shoot("explain")

	p.live(f, "/?container=web&port=81/tcp")
	p.click("#detail .why button")
	p.waitText("#detail .why .bad", "explanations are off (--explain)")
	p.wait("!document.querySelector('#detail .why button').disabled")
}
