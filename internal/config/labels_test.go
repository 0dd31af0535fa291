package config

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"portwatcher/internal/model"
)

func TestEnabled(t *testing.T) {
	for value, want := range map[string]bool{"true": true, "1": true, "YES": true, "false": false, "0": false, "No": false} {
		c := &model.Container{Name: "web", Labels: map[string]string{labelEnable: value}}
		if got, err := Enabled(c); got != want || err != nil {
			t.Errorf("%q: got %v, %v", value, got, err)
		}
	}
	if got, err := Enabled(&model.Container{}); !got || err != nil {
		t.Errorf("no label: got %v, %v", got, err)
	}
	for _, value := range []string{"", "off", "falsch"} {
		c := &model.Container{Name: "web", Labels: map[string]string{labelEnable: value}}
		got, err := Enabled(c)
		var invalid *Error
		if !got || !errors.As(err, &invalid) || !strings.HasPrefix(err.Error(), "container web: label portwatcher.enable: ") {
			t.Errorf("%q: got %v, %v", value, got, err)
		}
	}
}

func TestIgnored(t *testing.T) {
	labelled := func(value string) *model.Container {
		return &model.Container{Name: "web", Labels: map[string]string{LabelIgnore: value}}
	}
	rules, err := Ignored(labelled("9000-9100/tcp, 53/udp"))
	if err != nil || !rules.Contains(model.TCP, 9050) || rules.Contains(model.UDP, 9050) || !rules.Contains(model.UDP, 53) || rules.Contains(model.TCP, 80) {
		t.Errorf("got %v, %v", rules, err)
	}
	for name, c := range map[string]*model.Container{"no label": {Name: "web"}, "empty": labelled("")} {
		if rules, err := Ignored(c); err != nil || rules.Contains(model.TCP, 80) {
			t.Errorf("%s: got %v, %v", name, rules, err)
		}
	}
	rules, err = Ignored(labelled("80 9000-9100/sctp"))
	const want = `container web: label portwatcher.ignore: "80 9000-9100/sctp": entry "9000-9100/sctp": allowed are ports from 1 to 65535 and ranges such as 8000-8100, each with /tcp, /udp or neither, separated by commas or blanks`
	var invalid *Error
	if rules.Contains(model.TCP, 80) || !errors.As(err, &invalid) || err.Error() != want {
		t.Errorf("got  %v, %v\nwant %s", rules, err, want)
	}
}

func TestExpectedLabel(t *testing.T) {
	c := func(text string) *model.Container {
		return &model.Container{Name: "web", Labels: map[string]string{LabelExpect: text}}
	}
	if err := Expected(c("80/tcp@published, 81@lan")); err != nil {
		t.Error(err)
	}
	if err := Expected(c("80")); err == nil || !strings.HasPrefix(err.Error(), `container web: label portwatcher.expect: "80": allowed are ports and ranges with the widest exposure`) {
		t.Errorf("error %v", err)
	}
	if err := Expected(&model.Container{}); err != nil {
		t.Error(err)
	}
}

func TestUnknownLabels(t *testing.T) {
	got := UnknownLabels(&model.Container{Name: "web", Labels: map[string]string{
		labelEnable: "true", LabelIgnore: "80", LabelExpect: "80@host", "portwatcher.ignored": "1", "portwatcher.something": "x", "portwatcher": "y", "com.portwatcher.enable": "z",
	}})
	want := []string{
		"portwatcher.ignored (did you mean portwatcher.ignore?)",
		"portwatcher.something",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := UnknownLabels(&model.Container{}); got != nil {
		t.Errorf("no labels: got %q", got)
	}
}
