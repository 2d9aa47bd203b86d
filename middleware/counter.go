package middleware

import (
	"os"

	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

func (r *runtime) openRedis() error {
	if r.options.Redis == nil {
		return nil
	}
	options, err := r.options.Redis.Client()
	if err != nil {
		return err
	}
	// Without this, calls to a Redis that does not answer exceed the callers' deadlines.
	options.ContextTimeoutEnabled = true
	LogRedis(r.log)
	client := redis.NewUniversalClient(options)
	r.onClose(client.Close)
	r.redis = rediscounts.New(client, r.options.Redis.Name)
	return nil
}

func (r *runtime) openCounter() error {
	classifier, err := classify.New(classify.Config{
		IgnoreUserAgents: r.options.Count.IgnoreUserAgents,
		IgnoreActors:     r.options.Count.IgnoreActors,
		HeadWindow:       r.options.Count.HeadWindow,
		Now:              clock.Now,
	})
	if err != nil {
		return err
	}
	r.classifier = classifier
	metrics := counter.NewMetrics()
	r.counter, err = counter.Open(r.state, counter.Config{
		Redis:     r.redis,
		Instance:  r.instance,
		Host:      hostname(),
		Journal:   r.journal.ID,
		LastEvent: r.lastEvent,
		HasTag:    r.hasTag(),
		Learn:     classifier.Learn,
		Now:       clock.Now,
		Logger:    r.log,
		Metrics:   metrics,
	})
	if err != nil {
		return err
	}
	r.register(metrics.Collectors()...)
	children, err := r.counter.Children()
	if err != nil {
		return err
	}
	classifier.Learn(children...)
	return nil
}

// counts returns the counts that are shown and published: those of this registry or,
// with Redis, the sum.
func (r *runtime) counts() counts.Source {
	if r.redis == nil {
		return r.counter
	}
	return &rediscounts.Sum{DB: r.redis, Check: r.counter.Check, Now: clock.Now}
}

func hostname() string {
	name, _ := os.Hostname() // for the operator, in `tidings redis list`
	return name
}
