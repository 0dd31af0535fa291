package api

import (
	"time"

	"portwatcher/internal/model"
)

// PathAlerts is the path of rules, receivers and deliveries.
const PathAlerts = "/api/v1/alerts"

// AlertsSummary is the part of [Status] about alerts.
type AlertsSummary struct {
	// Enabled means that there is at least one receiver.
	Enabled bool `json:"enabled"`
	// Pending is how many deliveries wait for a try, Dead how many were given up, and Held how
	// many alerts quiet hours or the bound on the rate hold back.
	Pending int `json:"pending"`
	Dead    int `json:"dead"`
	Held    int `json:"held"`
	// Conditions is how many conditions last.
	Conditions int `json:"conditions"`
	// Dropped counts alerts that were beyond the bounds, or whose receiver was removed, since the start.
	Dropped uint64 `json:"dropped"`
}

// Alerts is the answer of [PathAlerts]. It has no secret.
type Alerts struct {
	AlertsSummary
	// Standard means that the rules are the standard ones.
	Standard bool `json:"standard"`
	// GroupWaitSeconds is how long alerts of a group are gathered, RepeatSeconds after how long
	// one is repeated; 0: never.
	GroupWaitSeconds float64 `json:"group_wait_seconds"`
	RepeatSeconds    float64 `json:"repeat_seconds"`
	// MaxPerHour bounds the messages to each receiver.
	MaxPerHour int        `json:"max_per_hour"`
	Quiet      []Quiet    `json:"quiet"`
	Rules      []Rule     `json:"rules"`
	Receivers  []Receiver `json:"receivers"`
	// Open are the conditions that last, or wait for the end of their rule's for, the oldest
	// first; 1000 at most.
	Open []Condition `json:"open"`
	// Deliveries are the latest, the newest first.
	Deliveries []Delivery `json:"deliveries"`
	// EvaluatedID is the id of the event up to which the rules were evaluated.
	EvaluatedID uint64 `json:"evaluated_id"`
}

// Quiet are hours in which messages are held back.
type Quiet struct {
	From string `json:"from"` // "22:00"
	To   string `json:"to"`
	Zone string `json:"zone"`
	// Except is the least severity that is sent all the same; empty for none.
	Except string `json:"except,omitempty"`
}

// Rule is a rule with its counts since the start.
type Rule struct {
	Name       string   `json:"name"`
	When       string   `json:"when"`
	ForSeconds float64  `json:"for_seconds"`
	Severity   string   `json:"severity"`
	To         []string `json:"to"`
	Evaluated  uint64   `json:"evaluated"`
	Matched    uint64   `json:"matched"`
	Failed     uint64   `json:"failed"`
}

// Receiver is a receiver with its counts.
type Receiver struct {
	Name string `json:"name"`
	// Kind is webhook, email, shoutrrr or alertmanager; empty where the settings have the receiver
	// no more.
	Kind    string `json:"kind,omitempty"`
	Removed bool   `json:"removed"`
	// Pending and Dead are how many deliveries the journal has, Held how many alerts are held
	// back.
	Pending int `json:"pending"`
	Dead    int `json:"dead"`
	Held    int `json:"held"`
	// Delivered, FailedTries and GivenUp are since the start.
	Delivered   uint64 `json:"delivered"`
	FailedTries uint64 `json:"failed_tries"`
	GivenUp     uint64 `json:"given_up"`
	// LastTry and LastDelivered are left out where there was none since the start.
	LastTry       time.Time `json:"last_try,omitzero"`
	LastDelivered time.Time `json:"last_delivered,omitzero"`
	// Problem is why the last try failed; left out after one that succeeded.
	Problem string `json:"problem,omitempty"`
}

// Condition is what a rule has found and what lasts.
type Condition struct {
	// Key is the identity of the condition.
	Key      string    `json:"key"`
	Rule     string    `json:"rule"`
	Severity string    `json:"severity"`
	To       []string  `json:"to"`
	Since    time.Time `json:"since"`
	// Waiting means that it has not lasted for the time of its rule.
	Waiting bool         `json:"waiting"`
	Event   *model.Event `json:"event"`
}

// Delivery is a message to one receiver.
type Delivery struct {
	ID       string    `json:"id"`
	Receiver string    `json:"receiver"`
	State    string    `json:"state"` // pending, delivered or dead
	Made     time.Time `json:"made"`
	// Due is when the next try is due; left out unless it is pending. Finished is when the last
	// try ended; left out while it is.
	Due      time.Time `json:"due,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	Title    string    `json:"title"`
	Severity string    `json:"severity,omitempty"`
	Digest   bool      `json:"digest"`
	Alerts   int       `json:"alerts"`
	// Tried is how many tries there were; Tries are the latest of them, the oldest first.
	Tried int   `json:"tried"`
	Tries []Try `json:"tries"`
}

// Try is one try of a delivery.
type Try struct {
	Time      time.Time `json:"time"`
	Delivered bool      `json:"delivered"`
	// Status is that of the answer; left out where there was none.
	Status   int    `json:"status,omitempty"`
	Response string `json:"response,omitempty"`
	Error    string `json:"error,omitempty"`
}
