// Lock libraries of Go, unchanged, against the Redis dialect: take, contend, extend, release.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/go-redsync/redsync/v4"
	pool "github.com/go-redsync/redsync/v4/redis/redigo"
	"github.com/gomodule/redigo/redis"
)

func mutex(ctx context.Context, port string) error {
	dial := func() (redis.Conn, error) { return redis.Dial("tcp", "127.0.0.1:"+port) }
	rs := redsync.New(pool.NewPool(&redis.Pool{Dial: dial}))
	name := fmt.Sprintf("go-%d", os.Getpid())
	first := rs.NewMutex(name, redsync.WithExpiry(3*time.Second), redsync.WithTries(1))
	second := rs.NewMutex(name, redsync.WithExpiry(3*time.Second), redsync.WithTries(1))
	if err := first.LockContext(ctx); err != nil {
		return err
	}
	if second.LockContext(ctx) == nil {
		return errors.New("taken twice")
	}
	if done, err := first.ExtendContext(ctx); err != nil || !done {
		return fmt.Errorf("not extended: %v", err)
	}
	if valid, err := first.ValidContext(ctx); err != nil || !valid {
		return fmt.Errorf("not valid: %v", err)
	}
	if done, err := first.UnlockContext(ctx); err != nil || !done {
		return fmt.Errorf("not released: %v", err)
	}
	if done, _ := first.UnlockContext(ctx); done {
		return errors.New("released twice")
	}
	if err := second.LockContext(ctx); err != nil {
		return fmt.Errorf("not free: %v", err)
	}
	_, err := second.UnlockContext(ctx)
	return err
}

func main() {
	if err := mutex(context.Background(), os.Args[1]); err != nil {
		fmt.Printf("FAILED  redsync: %v\n0 of 1\n", err)
		os.Exit(1)
	}
	fmt.Println("ok      redsync\n1 of 1")
}
