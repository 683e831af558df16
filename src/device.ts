import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'

const places = [
  '/proc/device-tree/serial-number', // Raspberry Pi, Jetson
  '/sys/class/dmi/id/product_serial',
  '/etc/machine-id',
]

const usable = /^[A-Za-z0-9][\w.-]{5,127}$/

/** The board's own serial, else the machine id, else the host name. */
export const machineSerial = (read: (path: string) => string = (path) => readFileSync(path, 'latin1')): string => {
  for (const place of places) {
    try {
      const serial = read(place).replaceAll('\0', '').trim()
      if (usable.test(serial) && !/^(0+|default|none|not.?specified|to.?be.?filled.*)$/i.test(serial)) return serial
    } catch {
      // Not on this machine.
    }
  }
  return hostname().replace(/[^\w.-]/g, '-')
}
